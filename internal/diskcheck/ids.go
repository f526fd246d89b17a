package diskcheck

// ID names a check. It is stable: scripts may go by it.
type ID string

// The checks, in the order in which they run.
const (
	PartitionTable ID = "partition-table"
	Storage        ID = "storage"
	BootMode       ID = "boot-mode"
	EFIBootFile    ID = "efi-boot-file"
	RootFilesystem ID = "root-filesystem"
	Clean          ID = "filesystem-clean"
	Architecture   ID = "architecture"
	OSVersion      ID = "os-version"
	Fstab          ID = "fstab"
	Swap           ID = "swap"
	BootConfig     ID = "boot-config"
	Kernel         ID = "kernel"
	Initramfs      ID = "initramfs"
	VirtioPCI      ID = "virtio-pci"
	VirtioBlk      ID = "virtio-blk"
	VirtioSCSI     ID = "virtio-scsi"
	VirtioNet      ID = "virtio-net"
	CloudInit      ID = "cloud-init"
	GrowRoot       ID = "grow-root"
	Network        ID = "network"
	NetworkNames   ID = "network-names"
	SSHServer      ID = "ssh-server"
	SSHHostKeys    ID = "ssh-host-keys"
	Access         ID = "access"
	MachineID      ID = "machine-id"
)

var reasons = []struct {
	id  ID
	why string
}{
	{PartitionTable, "The firmware and the kernel find the boot loader and the system by the partition table; it goes into the image as it is."},
	{Storage, "What lies in a volume that can't be read here can't be checked; it may be in order."},
	{BootMode, "The machine gets the firmware that hw_firmware_type names. A disk without a boot loader for it does not start."},
	{EFIBootFile, "A new machine has an empty list of boot entries, so UEFI firmware starts only the file with the name that the standard gives, EFI/BOOT/BOOTX64.EFI or BOOTAA64.EFI."},
	{RootFilesystem, "Everything else is looked up in the system's files."},
	{Clean, "The image holds what was on the disk. What a running system had not written yet is missing in it, and is repaired, or lost, at the first start."},
	{Architecture, "The machine's processor must be the one the system was built for."},
	{OSVersion, "os_version must be one of the names that the service knows; the platform chooses defaults for devices and tools by it."},
	{Fstab, "systemd waits for what fstab mounts. What is not there, or has another device name on the machine (/dev/sda here may be /dev/vda there), stops the start in emergency mode."},
	{Swap, "Swap that is not there delays the start by a minute and a half, and then there is none."},
	{BootConfig, "The kernel is told by the boot loader where the root file system is. A device name may be another one on the machine, and a UUID that is not on the disk never appears."},
	{Kernel, "The boot loader needs a kernel, and the kernel its modules."},
	{Initramfs, "The drivers for the disk must be in the initramfs, because it is what mounts the root file system."},
	{VirtioPCI, "All virtio devices, the disk among them, are reached through this driver."},
	{VirtioBlk, "The machine's disk is on virtio-blk. Without its driver the kernel finds no root file system."},
	{VirtioSCSI, "Disks of the type SCSI are attached through virtio-scsi."},
	{VirtioNet, "The machine has a virtio network card. Without the driver there is no network."},
	{CloudInit, "cloud-init sets the password or the keys, the host name and the size of the root file system at the first start. Without it every machine is a copy, with the passwords of the original."},
	{GrowRoot, "A machine's disk may be larger than the image. The root partition and its file system must be told to fill it."},
	{Network, "A machine gets its address by DHCP. One that keeps the address of the original, or asks for none, can't be reached."},
	{NetworkNames, "Each machine has a network card with another hardware address, and a name that depends on where it is plugged in. Settings for the old one don't apply to it."},
	{SSHServer, "A machine is reached over SSH, unless it is made to be reached in another way."},
	{SSHHostKeys, "The SSH server does not start without host keys; machines that share theirs can stand in for each other unnoticed."},
	{Access, "Somebody must be able to log in, with a key or a password that is on the disk or that cloud-init brings."},
	{MachineID, "Machines that share it get the same address from some DHCP servers and mix up their logs."},
}

// IDs are all checks, in the order in which they run.
func IDs() []ID {
	list := make([]ID, len(reasons))
	for i, r := range reasons {
		list[i] = r.id
	}
	return list
}

func why(id ID) string {
	for _, r := range reasons {
		if r.id == id {
			return r.why
		}
	}
	return ""
}
