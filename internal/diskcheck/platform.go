package diskcheck

// Platform is where the machine will run. It decides which of cloud-init's data
// sources answer there, and whether the os_version matters.
type Platform string

// The platforms.
const (
	OTC       Platform = "otc"       // Open Telekom Cloud and its kin
	OpenStack Platform = "openstack" // any cloud with OpenStack's metadata service
	KVM       Platform = "kvm"       // a host of one's own: no metadata, but maybe a seed disk
)

// given are cloud-init's data sources that a machine has on a platform without
// anything from its owner: the metadata service and the configuration drive.
func (p Platform) given() []string {
	if p == KVM {
		return nil
	}
	return []string{"OpenStack", "ConfigDrive", "Ec2"}
}

// seeds are the data sources that read a disk which the owner attaches.
func (p Platform) seeds() []string {
	if p == KVM {
		return []string{"NoCloud", "ConfigDrive"}
	}
	return nil
}
