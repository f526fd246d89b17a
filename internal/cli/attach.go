package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/quickims/quickims/internal/client"
	"github.com/quickims/quickims/internal/ims"
)

// AttachCmd has an image's disk served as a block device.
type AttachCmd struct {
	serverFlags
	Image string `arg:"" name:"image" help:"The image's id, or its name if no other has the same."`
	lifeFlags
	Exec    bool     `help:"Run COMMAND with the URI in $NBD_URI, detach when it has ended, and end with its status."`
	Qemu    string   `name:"qemu-config" placeholder:"FILE" help:"Describe the disk in FILE for qemu's -readconfig, in place of printing the URI: the secret is then in no process list. - is standard output."`
	Command []string `arg:"" optional:"" passthrough:"" name:"command" help:"With --exec: one argument is a line for /bin/sh, several are a command and its arguments."`
}

// lifeFlags say how long an attachment lasts.
type lifeFlags struct {
	TTL    *time.Duration `name:"ttl" placeholder:"TIME" help:"How long the attachment lasts while nobody is connected: 90s, 15m, 12h, 1d, up to 30d; 0 for until it is detached. 24h if nothing else was said."`
	MaxAge *time.Duration `name:"max-age" placeholder:"TIME" help:"End the attachment at this age though somebody is connected: 1m to 3650d, 0 for never, which is the default."`
}

func (l lifeFlags) check() error {
	for _, f := range []struct {
		name string
		time *time.Duration
		most time.Duration
	}{{"ttl", l.TTL, ims.MaxAttachTime}, {"max-age", l.MaxAge, ims.MaxAttachAge}} {
		if f.time != nil && *f.time != 0 && (*f.time < ims.MinAttachTime || *f.time > f.most) {
			return fmt.Errorf("--%s %s: it is %s to %s, or 0", f.name, short(*f.time), short(ims.MinAttachTime), short(f.most))
		}
	}
	return nil
}

func (l lifeFlags) life() client.AttachLife { return client.AttachLife{TTL: l.TTL, MaxAge: l.MaxAge} }

// Help shows the command's use.
func (AttachCmd) Help() string {
	return `The disk is served over NBD, read-only, to whoever knows the URI: it holds a secret, which is not shown again. What a machine writes goes to an overlay.

Examples:

    quickims attach web
    quickims attach web --ttl 0          # until it is detached
    quickims attach web --ttl 1h --json
    quickims attach web --qemu-config web.cfg && qemu-system-x86_64 -m 1G -readconfig web.cfg
    quickims attach web --exec 'nbdinfo "$NBD_URI"'
    quickims attach web --exec 'qemu-img convert -f raw "$NBD_URI" -O qcow2 web.qcow2'
`
}

// Validate checks what the grammar can't say.
func (c *AttachCmd) Validate() error {
	if c.Exec && len(c.Command) > 0 && c.Command[0] == "--" {
		c.Command = c.Command[1:] // it ends our flags, and is no command
	}
	if err := c.check(); err != nil {
		return err
	}
	switch {
	case c.Exec && c.Qemu != "":
		return fmt.Errorf("--qemu-config and --exec: the attachment ends with the command")
	case c.Exec && len(c.Command) == 0:
		return fmt.Errorf("--exec: name the command to run behind the image")
	case !c.Exec && len(c.Command) > 0:
		return fmt.Errorf("%q: a command is run with --exec alone", c.Command[0])
	}
	return nil
}

// short writes a time as a flag takes it, without the parts that are 0: 1m, 720h.
func short(d time.Duration) string {
	text := d.String()
	for _, part := range []struct{ zero, before string }{{"0s", "m"}, {"0m", "h"}} {
		if strings.HasSuffix(text, part.before+part.zero) {
			text = strings.TrimSuffix(text, part.zero)
		}
	}
	return text
}

// Run attaches.
func (c *AttachCmd) Run(ctx context.Context, s *session) error {
	if c.Exec && s.json {
		return usagef("--json and --exec: standard output is the command's")
	}
	if c.Qemu == stdoutPath && s.json {
		return usagef("--json and --qemu-config -: standard output is the configuration's")
	}
	service, id, err := c.connectTo(ctx, s, c.Image)
	if err != nil {
		return err
	}
	asking := ctx
	if c.Exec {
		// An interrupt must not leave an attachment that nobody knows of: it is looked at
		// when the answer is there.
		asking = context.WithoutCancel(ctx)
	}
	a, err := service.Attach(asking, id, c.life())
	if err != nil {
		return fmt.Errorf("attach image %s: %w", c.Image, interrupted(ctx, err))
	}
	if c.Exec {
		return c.exec(ctx, s, service, a)
	}
	if c.Qemu != "" {
		if err := s.writeQemuConfig(c.Qemu, a.URI, a.ImageName); err != nil {
			c.detach(ctx, s, service, a)
			return err
		}
		if c.Qemu == stdoutPath {
			return nil
		}
	}
	uri, err := url.Parse(a.URI)
	if err != nil {
		return fmt.Errorf("read the attachment's URI: %w", err)
	}
	return s.result(a.Raw, func(w io.Writer) {
		fmt.Fprintf(w, "Attachment\t%s\n", a.ID)
		fmt.Fprintf(w, "Image\t%s  %s\n", a.ImageID, a.ImageName)
		fmt.Fprintf(w, "Until\t%s\n", until(a))
		if c.Qemu != "" {
			fmt.Fprintf(w, "\nqemu-system-x86_64 -m 1G -readconfig %s\n", quoted(c.Qemu))
			return
		}
		fmt.Fprintf(w, "URI\t%s\n", a.URI)
		object, system, backing := qemuBacking(uri)
		fmt.Fprintf(w, "\nqemu-img create -q %s-f qcow2 -F raw -b %s overlay.qcow2\n", object, quoted(backing))
		fmt.Fprintf(w, "qemu-system-x86_64 -m 1G %s-drive file=overlay.qcow2,if=virtio\n", system)
		fmt.Fprintf(w, "nbdinfo %s\n", quoted(infoURI(a.URI)))
		fmt.Fprintf(w, "\n%s", libvirtDisk(uri))
	})
}

// caFolder is where the commands that are printed look for ca-cert.pem, the certificate
// of who signed the server's. Users have it elsewhere: it is to be seen in the line.
const caFolder = "/etc/pki/qemu"

// infoURI is an URI as libnbd's tools need it.
func infoURI(uri string) string {
	if strings.HasPrefix(uri, "nbds://") {
		return uri + "?tls-certificates=" + caFolder
	}
	return uri
}

// quoted makes one word of a shell's of text that holds no quotes itself.
func quoted(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// detachTime is how long the end of an attachment may take once its command has ended.
const detachTime = 30 * time.Second

// detach ends an attachment whatever became of the command's context.
func (c *AttachCmd) detach(ctx context.Context, s *session, service *client.Client, a client.Attachment) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), detachTime)
	defer cancel()
	if err := service.Detach(ctx, a.ID, true); err != nil && !gone(err) {
		s.note("the attachment %s lasts until %s: it could not be ended: %v", a.ID, until(a), err)
	}
}
