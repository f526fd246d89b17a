package ims

import (
	"regexp"
	"strconv"
	"strings"
)

// Flavor is what the name of a server flavor says of the machine.
type Flavor struct {
	Env          EnvType
	Architecture string
	RAMMiB       int // 0 if the name does not say
}

// flavorName is how the clouds name flavors: family, size and GiB of memory for each vCPU,
// such as s3.2xlarge.4.
var flavorName = regexp.MustCompile(`^([a-z][a-z0-9]{0,15})\.(small|medium|large|(?:[1-9][0-9]{0,2})?xlarge)\.([1-9][0-9]{0,2})$`)

// physicalFlavor is how they name those of bare metal.
var physicalFlavor = regexp.MustCompile(`^physical\.[a-z0-9.]{1,64}$`)

// ParseFlavor reads the name of a flavor. There is no compute service to ask, and the
// published names tell what an image has to fit: the families that begin with k are arm.
// Another name is IMG.0192.
func ParseFlavor(name string) (Flavor, error) {
	if physicalFlavor.MatchString(name) {
		return Flavor{Env: EnvBMS, Architecture: architectureOf(strings.TrimPrefix(name, "physical."))}, nil
	}
	m := flavorName.FindStringSubmatch(name)
	if m == nil {
		return Flavor{}, Faultf(CodeFlavor, "flavor_id is %q; it must be a name such as s3.large.4 or physical.o2.medium", Clip(name))
	}
	vCPUs := map[string]int{"small": 1, "medium": 1, "large": 2, "xlarge": 4}[m[2]]
	if times, ok := strings.CutSuffix(m[2], "xlarge"); ok && times != "" {
		n, _ := strconv.Atoi(times) // digits
		vCPUs = 4 * n
	}
	perVCPU, _ := strconv.Atoi(m[3])
	return Flavor{Env: EnvECS, Architecture: architectureOf(m[1]), RAMMiB: vCPUs * perVCPU << 10}, nil
}

func architectureOf(family string) string {
	if strings.HasPrefix(family, "k") {
		return ArchARM
	}
	return ArchX86
}
