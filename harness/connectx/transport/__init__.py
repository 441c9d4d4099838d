"""Transport: vfio-user, PCI, interrupts, guest memory, control socket."""
