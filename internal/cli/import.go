package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/diskcheck"
	"github.com/quickims/quickims/internal/diskformat"
	"github.com/quickims/quickims/internal/ims"
	"github.com/quickims/quickims/internal/inspect"
)

// ImportCmd makes an image of a disk file.
type ImportCmd struct {
	serverFlags
	inputFlags
	Source            string             `arg:"" name:"source" help:"A local disk file, which is uploaded first, or bucket:key of a RAW or ZVHD2 file that is there already."`
	Name              string             `required:"" help:"The image's name."`
	OSVersion         string             `name:"os-version" placeholder:"OS" help:"Operating system on the disk, as \"quickims os-versions\" lists them; not for a data disk. Default: what the disk says."`
	MinDisk           *int64             `placeholder:"GIB" help:"Least size of a machine's disk in GiB. Default: the size of the disk in the file, rounded up."`
	Type              string             `enum:"ECS,BMS,DataImage" default:"ECS" help:"What the image is for: ECS (virtual machines), BMS (bare metal) or DataImage (a data disk). Default: ECS."`
	OSType            string             `name:"os-type" enum:",Linux,Windows" default:"" placeholder:"TYPE" help:"For a data disk: Linux or Windows. Default: Linux."`
	Description       string             `placeholder:"TEXT" help:"One line about the image."`
	Tag               []string           `sep:"none" placeholder:"KEY=VALUE" help:"A tag. May be given up to 10 times."`
	Architecture      string             `enum:",x86,arm" default:"" placeholder:"ARCH" help:"x86 or arm. Default: x86."`
	Firmware          string             `enum:",bios,uefi" default:"" placeholder:"FIRMWARE" help:"bios or uefi. Default: bios, for arm uefi."`
	EnterpriseProject string             `placeholder:"ID" help:"Enterprise project of the image. Default: 0."`
	Bucket            string             `help:"Bucket that a local file is uploaded to; made if it is not there. Default: images-PROJECT_ID."`
	Convert           bool               `help:"Upload a local RAW file as ZVHD2, which is made on the way; other formats are always converted."`
	Restart           bool               `help:"Begin the upload anew: throw away what an earlier one, which did not come to its end, left in the store."`
	RemoveSource      bool               `name:"remove-source" help:"When the image is active, delete the object that it was made from, and its bitmap, from the bucket. A local file stays."`
	For               diskcheck.Platform `enum:"otc,openstack,kvm" default:"otc" placeholder:"PLATFORM" help:"Where the machines will run, for the check of the system on the disk: otc, openstack or kvm. Default: otc."`
	NoWait            bool               `help:"Do not wait for the job's end: print its id."`
}

// Help shows the command's use.
func (ImportCmd) Help() string {
	return `A local file is uploaded over S3, under its own name. With a RAW file goes its .mf, which is checked first or made if there is none. A file of another format (qcow2, VMDK, VHD, VHDX, VDI, qcow, QED, ZVHD), or RAW with --convert, becomes ZVHD2 on the way, without a file in between. What the service would refuse is found out before the upload as far as can be. The system on the disk is checked as "quickims check" does; what it finds are warnings. A large upload as it is that was cut goes on when the same command is run again; one with conversion leaves nothing behind and begins anew.

Examples:

    quickims import debian.qcow2 --name web
    quickims import disk.raw --name web --os-version "Debian GNU/Linux 12.0.0 64bit"
    quickims import images:disk.zvhd2 --name web --os-version "Debian GNU/Linux 12.0.0 64bit" --min-disk 10 --tag role=web
    quickims import data.zvhd2 --name data --type DataImage
`
}

// Validate checks what the grammar can't say.
func (c *ImportCmd) Validate() error {
	data := c.dataDisk()
	switch {
	case !data && c.OSType != "":
		return errors.New("--os-type goes with --type DataImage alone; --os-version says it all")
	case data && (c.OSVersion != "" || c.Architecture != "" || c.Firmware != ""):
		return errors.New("--os-version, --architecture and --firmware do not go with --type DataImage")
	case c.RemoveSource && c.NoWait:
		return errors.New("--remove-source waits for the image: leave out --no-wait")
	case c.MinDisk != nil && (*c.MinDisk < 1 || *c.MinDisk > ims.MaxDiskGiB):
		return fmt.Errorf("--min-disk %d: it is 1 to %d GiB", *c.MinDisk, ims.MaxDiskGiB)
	}
	return nil
}

// importDoc is what an import made.
type importDoc struct {
	ImageID   string          `json:"image_id,omitempty"` // absent with --no-wait
	ImageName string          `json:"image_name"`
	JobID     string          `json:"job_id"`
	Source    string          `json:"source"` // bucket:key
	Uploaded  []string        `json:"uploaded,omitempty"`
	MinDisk   int64           `json:"min_disk"` // GiB
	Seconds   float64         `json:"seconds"`  // from the request to the job's end
	Job       json.RawMessage `json:"job,omitempty"`
	Warnings  warnings        `json:"warnings,omitempty"`
}

// Run imports.
func (c *ImportCmd) Run(ctx context.Context, s *session) error {
	service, err := c.connect(s)
	if err != nil {
		return err
	}
	request := c.request()
	var uploaded []string
	var from objectName
	var said warnings
	if c.isLocal() {
		from, uploaded, err = c.bring(ctx, s, service, &request, &said)
	} else {
		from, err = c.find(ctx, s, &request)
	}
	if err != nil {
		return err
	}
	request.ImageURL = ptr(from.String())
	began := s.now()
	id, err := service.QuickImport(ctx, request)
	if err != nil {
		return c.notAccepted(ctx, from, err)
	}
	doc := importDoc{ImageName: c.Name, JobID: id, Source: from.String(), Uploaded: uploaded, MinDisk: *request.MinDisk}
	if doc.Warnings = said; c.NoWait {
		return s.result(doc, func(w io.Writer) { fmt.Fprintf(w, "job %s\n", id) })
	}
	job, err := s.wait(ctx, service, id)
	if err != nil {
		return err
	}
	said.fromJob(s, job.Warnings)
	doc.Warnings = said
	if err := job.Err(); err != nil {
		return fmt.Errorf("import %s: %w", from, err)
	}
	if c.RemoveSource {
		if err := c.removeSource(ctx, s, from); err != nil {
			return err
		}
	} else if len(uploaded) > 0 {
		s.note("the image does not need what was uploaded any more; it stays in the bucket: %s", strings.Join(uploaded, " and "))
	}
	doc.ImageID, doc.Job, doc.Seconds = job.ImageID, job.Raw, s.now().Sub(began).Seconds()
	return s.result(doc, func(w io.Writer) {
		fmt.Fprintf(w, "image %s (%s) is active, %s after the request\n", job.ImageID, c.Name, seconds(doc.Seconds))
	})
}

// removeSource deletes what an image was made from: the object, and the bitmap that the
// service found beside it, which is the first that is there.
func (c *ImportCmd) removeSource(ctx context.Context, s *session, from objectName) error {
	store, err := c.store(s)
	if err != nil {
		return err
	}
	if err := s.deleteObject(ctx, store, from, false); err != nil {
		return fmt.Errorf("the image is active, but its source stays: %w", err)
	}
	for _, key := range ims.BitmapKeys(from.key) {
		beside := objectName{from.bucket, key}
		if _, there, err := s.stat(ctx, store, beside); err != nil || !there {
			continue
		}
		return s.deleteObject(ctx, store, beside, false)
	}
	return nil
}

// notAccepted tells of an import that was not accepted, or of which that is not
// known.
func (c *ImportCmd) notAccepted(ctx context.Context, from objectName, err error) error {
	err = fmt.Errorf("import %s: %w", from, interrupted(ctx, err))
	if _, answered := errors.AsType[*client.Error](err); answered || errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return fmt.Errorf("%w; the service may have accepted it all the same, look with: quickims image list --name %q", err, c.Name)
}

func ptr[T any](v T) *T { return &v }

// optional is a field of the request: absent when the flag was not given.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// request is the import as the flags say it, without source and maybe without
// min_disk.
func (c *ImportCmd) request() ims.ImportRequest {
	r := ims.ImportRequest{
		Name: &c.Name, Description: optional(c.Description), OSVersion: optional(c.OSVersion),
		OSType: optional(c.OSType), Type: &c.Type, EnterpriseProjectID: optional(c.EnterpriseProject),
		Architecture: optional(c.Architecture), Firmware: optional(c.Firmware), MinDisk: c.MinDisk,
	}
	for _, text := range c.Tag {
		key, value, _ := strings.Cut(text, "=")
		r.ImageTags = append(r.ImageTags, ims.Tag{Key: key, Value: value})
	}
	return r
}

// isLocal reports whether the source is a local file: one that is there, or a name
// that can't be an object's.
func (c *ImportCmd) isLocal() bool {
	if _, err := os.Stat(c.Source); !errors.Is(err, fs.ErrNotExist) {
		return true
	}
	bucket, _, hasColon := strings.Cut(c.Source, ":")
	return !hasColon || strings.ContainsRune(bucket, os.PathSeparator)
}

// find settles an import of an object. What min_disk must be at least is read from
// the object if it was not said.
func (c *ImportCmd) find(ctx context.Context, s *session, r *ims.ImportRequest) (objectName, error) {
	switch {
	case c.Bucket != "":
		return objectName{}, usagef("--bucket goes with a local file alone; %s names its bucket", c.Source)
	case c.Convert || c.Restart || c.inputFlags != (inputFlags{}):
		return objectName{}, usagef("--convert, --restart, --format and --allow-backing go with a local file alone; %s is in the store already", c.Source)
	}
	from, err := parseObject(c.Source)
	if err != nil || r.MinDisk != nil && (c.dataDisk() || r.OSVersion != nil) {
		return from, err
	}
	store, err := c.store(s)
	if errors.Is(err, client.ErrNotConfigured) {
		return from, usagef("--min-disk and --os-version are required: the object can't be looked at, since %v", err)
	}
	if err != nil {
		return from, err
	}
	object, err := store.Stat(ctx, from.bucket, from.key)
	if e, ok := errors.AsType[*client.Error](err); ok && e.Status == http.StatusNotFound {
		return from, fmt.Errorf("import %s: %w", from, err)
	}
	if err != nil {
		return from, fmt.Errorf("look at %s for its disk's size and system (--min-disk and --os-version say them instead): %w", from, interrupted(ctx, err))
	}
	if object.Size == 0 {
		return from, fmt.Errorf("import %s: the object is empty; a disk file is wanted", from)
	}
	found, err := inspect.QuickImport(ctx, inspect.File{Name: object.Key, ReaderAt: store.ReaderAt(ctx, object), Size: object.Size}, c.judgement(0))
	if err != nil {
		return from, fmt.Errorf("look at %s for its disk's size: %w", from, interrupted(ctx, err))
	}
	if err := ims.CheckDiskSize(found.VirtualSize); err != nil {
		return from, fmt.Errorf("import %s: %w", from, err)
	}
	if r.MinDisk == nil {
		r.MinDisk = ptr(ims.LeastMinDisk(found.VirtualSize))
	}
	if c.dataDisk() {
		return from, nil
	}
	return from, c.takeOSVersion(s, r, diskcheck.Glance(ctx, found.Disk, found.VirtualSize))
}

func (c *ImportCmd) dataDisk() bool { return c.Type == string(ims.EnvData) }

// takeOSVersion takes the os_version that a disk tells, if none was given.
func (c *ImportCmd) takeOSVersion(s *session, r *ims.ImportRequest, report diskcheck.Report) error {
	switch {
	case r.OSVersion != nil:
		return nil
	case report.OSVersion == "":
		return usagef("--os-version is required: %s does not tell which system it holds; \"quickims os-versions\" lists the names", c.Source)
	}
	r.OSVersion = &report.OSVersion
	s.note("os_version is %q: the disk holds %s", report.OSVersion, cmp.Or(report.OSName, "a Linux system of no name"))
	return nil
}

// checkSystem checks the system on a disk as `quickims check` does, warns of what it
// finds, and takes its os_version.
func (c *ImportCmd) checkSystem(ctx context.Context, s *session, d *diskFile, r *ims.ImportRequest, said *warnings) error {
	if c.dataDisk() {
		return nil
	}
	report, err := diskcheck.Check(ctx, d, d.OrigSize, c.For)
	if err != nil {
		return fmt.Errorf("read %s: %w", c.Source, interrupted(ctx, err))
	}
	if err := c.takeOSVersion(s, r, report); err != nil {
		return err
	}
	said.warn(s, inspect.SystemNotes(report)...)
	return nil
}

// judgement is what of the request bears on the file.
func (c *ImportCmd) judgement(minDisk int64) inspect.Options {
	return inspect.Options{DataDisk: c.dataDisk(), MinDiskGiB: int(minDisk)}
}

// refused is why a quick import would not take the file as it is, nil if it would.
func (d *diskFile) refused(ctx context.Context, o inspect.Options) error {
	_, err := inspect.QuickImport(ctx, inspect.File{Name: filepath.Base(d.source.path), ReaderAt: d.source.File, Size: d.source.size}, o)
	return err
}

// encryptedData makes a LUKS volume that shall be a data disk count as the RAW disk that
// it is.
func (c *ImportCmd) encryptedData() error {
	if c.Format != "" || !c.dataDisk() {
		return nil
	}
	src, err := openSource(c.Source)
	if err != nil {
		return err
	}
	defer src.Close()
	if src.format == diskformat.LUKS {
		c.Format = string(diskformat.Raw)
	}
	return nil
}

// bring checks a local file and what is asked of it, then uploads it: as it is, with
// its bitmap if it is RAW, or converted.
func (c *ImportCmd) bring(ctx context.Context, s *session, service *client.Client, r *ims.ImportRequest, said *warnings) (to objectName, uploaded []string, err error) {
	if err := c.encryptedData(); err != nil {
		return to, nil, err
	}
	d, err := c.openDisk(c.Source)
	if err != nil {
		return to, nil, err
	}
	defer d.Close()
	if err := d.wholeSectors(); err != nil {
		return to, nil, err
	}
	if err := ims.CheckDiskSize(d.OrigSize); err != nil {
		return to, nil, fmt.Errorf("import %s: %w", c.Source, err)
	}
	converted := d.Disk.Format != diskformat.ZVHD2 && (c.Convert || d.Disk.Format != diskformat.Raw)
	least := ims.LeastMinDisk(d.OrigSize)
	if r.MinDisk == nil {
		r.MinDisk = &least
	}
	if to, err = c.destination(service.ProjectID(), d, converted); err != nil {
		return to, nil, err
	}
	store, err := c.store(s)
	if err != nil {
		return to, nil, err
	}
	if err := c.checkSystem(ctx, s, d, r, said); err != nil {
		return to, nil, err
	}
	if err := c.precheck(ctx, service, d, r, to, least, converted); err != nil {
		return to, nil, fmt.Errorf("import %s: %w", c.Source, interrupted(ctx, err))
	}
	hints, notes, err := d.survey(ctx)
	if err != nil {
		return to, nil, fmt.Errorf("read %s: %w", c.Source, interrupted(ctx, err))
	}
	said.warn(s, notes...)
	c.adviseFirmware(s, hints)
	if err := s.lockUpload(ctx, d.source); err != nil {
		return to, nil, err
	}
	if converted {
		return to, []string{to.String()}, c.bringConverted(ctx, s, store, d, to)
	}
	uploaded, err = c.bringAsIs(ctx, s, store, d.source, to)
	return to, uploaded, err
}

// bringConverted uploads a disk as ZVHD2, unless that was done before.
func (c *ImportCmd) bringConverted(ctx context.Context, s *session, store *client.Store, d *diskFile, to objectName) error {
	if err := s.ensureBucket(ctx, store, to.bucket); err != nil {
		return err
	}
	if !c.Restart {
		if _, ok, err := s.stat(ctx, store, to); err != nil || ok {
			if ok {
				s.note("%s is in the store already, converted, as %s; --restart converts it again", c.Source, to)
			}
			return err
		}
	}
	_, err := s.uploadConverted(ctx, store, d, to, c.Restart)
	return err
}

// bringAsIs uploads a RAW or ZVHD2 file, a RAW one with its bitmap.
func (c *ImportCmd) bringAsIs(ctx context.Context, s *session, store *client.Store, src *source, to objectName) (uploaded []string, err error) {
	if err := adviseConvert(s, src); err != nil {
		return nil, fmt.Errorf("read %s: %w", src.path, plain(err))
	}
	var mf mfToSend
	if src.format == diskformat.Raw {
		if mf, err = s.mfOf(ctx, src); err != nil {
			return nil, err
		}
		defer mf.close()
	}
	if err := s.ensureBucket(ctx, store, to.bucket); err != nil {
		return nil, err
	}
	there := false
	if !c.Restart {
		if there, err = s.there(ctx, store, src, to); err != nil {
			return nil, err
		}
	}
	if !there {
		if _, err := s.upload(ctx, store, src, to, c.Restart); err != nil {
			return nil, err
		}
	}
	uploaded = []string{to.String()}
	if src.format == diskformat.Raw {
		beside := objectName{to.bucket, ims.BitmapKey(to.key)}
		if err := s.sendMf(ctx, store, mf, beside, c.Restart); err != nil {
			return nil, err
		}
		uploaded = append(uploaded, beside.String())
	}
	return uploaded, nil
}

// destination is where a local file is uploaded to.
func (c *ImportCmd) destination(projectID string, d *diskFile, converted bool) (objectName, error) {
	to := objectName{bucket: c.Bucket}
	if to.bucket == "" {
		to.bucket = "images-" + strings.ToLower(projectID)
		if !ims.ValidBucketName(to.bucket) {
			return to, usagef("--bucket is wanted: the project's id %q makes no name of a bucket", projectID)
		}
	}
	name := filepath.Base(c.Source)
	if converted {
		name = strings.TrimSuffix(name, filepath.Ext(name)) + "." + string(diskformat.ZVHD2)
	}
	// The service takes no spaces in a source's name.
	to.key = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return '_'
		}
		return r
	}, name)
	to.key = generation(d, converted) + "/" + to.key
	return parseObject(to.String())
}

// generation is a folder for what is uploaded of one state of one file: two files of
// one name, or a file before and after it was changed, never share an object, so that
// no import takes another one's bytes or bitmap. The same file keeps its folder, so
// that an upload can be gone on with.
//
// What is converted is not compared with the file when it is found there. So its folder
// depends on all files that the disk lies in, on how they are read, and on when their
// inodes changed, which nobody can set.
func generation(d *diskFile, converted bool) string {
	host, _ := os.Hostname() // two machines may have the same paths
	sum := sha256.New()
	add := func(src *source) {
		fmt.Fprintf(sum, "%s\x00%s\x00%d\x00%d", host, absolute(src.path), src.size, src.info.ModTime().UnixNano())
		if converted {
			fmt.Fprintf(sum, "\x00%d\x00%s\x00", inodeChanged(src.info), d.Disk.Format)
		}
	}
	add(d.source)
	if converted {
		for _, src := range d.files.opened {
			add(src)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:generationLen/2])
}

// inodeChanged is when the inode changed, in nanoseconds; 0 where that is not told.
func inodeChanged(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return unix.TimespecToNsec(unix.Timespec(st.Ctim))
	}
	return 0
}

// generationLen is the length of such a folder's name.
const generationLen = 12

// withoutGeneration is the rest of a key that begins with such a folder.
func withoutGeneration(key string) (rest string, ok bool) {
	folder, rest, ok := strings.Cut(key, "/")
	if _, err := hex.DecodeString(folder); err != nil || len(folder) != generationLen {
		return "", false
	}
	return rest, ok
}

// absolute is a path as other folders see it, or if that can't be told as it is.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// precheck asks of the service what it takes to know whether it would accept the
// import, and goes through the service's own rules, all before the upload.
func (c *ImportCmd) precheck(ctx context.Context, service *client.Client, d *diskFile, r *ims.ImportRequest, to objectName, least int64, converted bool) error {
	used, quota, err := service.Quota(ctx)
	if err != nil {
		return err
	}
	if used >= quota {
		return ims.Faultf(ims.CodeQuota, "the project has %d images of at most %d", used, quota)
	}
	known, err := service.OSVersions(ctx)
	if err != nil {
		return err
	}
	whole := *r
	whole.ImageURL = ptr(to.String())
	if _, err := whole.Validate(known); err != nil {
		return err
	}
	if to.key == ims.BitmapKey(to.key) {
		return ims.Faultf(ims.CodeFile, "%q is the name of a bitmap, name the image file", to.key)
	}
	if err := enterpriseProjectUsable(ctx, service, c.EnterpriseProject); err != nil {
		return err
	}
	if *r.MinDisk < least {
		return ims.Faultf(ims.CodeDiskSize, "min_disk is %d GiB, the disk in the file has %d GiB", *r.MinDisk, least)
	}
	if converted {
		return nil
	}
	err = d.refused(ctx, c.judgement(*r.MinDisk))
	if fault, ok := errors.AsType[*ims.Error](err); ok && d.Disk.Format == diskformat.Raw && c.Format != "" && fault.Code == ims.CodeFile {
		return ims.Faultf(ims.CodeFile, "%s; if it is the disk's own content, as -f raw says, --convert imports it", fault.Detail)
	}
	return err
}

// enterpriseProjectUsable returns the fault that the service would have with an
// enterprise project of this id.
func enterpriseProjectUsable(ctx context.Context, service *client.Client, id string) error {
	if id == "" || id == ims.DefaultEnterpriseProject {
		return nil
	}
	list, err := service.EnterpriseProjects(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(p client.EnterpriseProject) bool { return strings.EqualFold(p.ID, id) })
	switch {
	case i < 0:
		return ims.Faultf(ims.CodeEnterpriseProject, "there is no enterprise project %q; \"quickims enterprise-project list\" shows them", id)
	case list[i].Status != client.EnterpriseEnabled:
		return ims.Faultf(ims.CodeEnterpriseProject, "the enterprise project %q is disabled", id)
	}
	return nil
}

// adviseFirmware speaks up when the disk looks as if it boots with UEFI alone and
// the image would boot with BIOS.
func (c *ImportCmd) adviseFirmware(s *session, hints diskformat.Hints) {
	if c.Firmware != "" || c.Architecture == ims.ArchARM || c.dataDisk() {
		return
	}
	if hints.EFISystem && !hints.BIOSBoot && !hints.LargeSectors {
		s.note("the disk has an EFI system partition and nothing to boot from with BIOS: --firmware uefi may be what you want")
	}
}

// adviseConvert speaks up when most of what will be uploaded are holes.
func adviseConvert(s *session, src *source) error {
	if src.format != diskformat.Raw || src.size < ims.GiB {
		return nil
	}
	stored, err := src.stored()
	if err == nil && stored < src.size/4 {
		s.note("%s of %s are holes, which are uploaded too; --convert leaves them out",
			size(src.size-stored), size(src.size))
	}
	return err
}
