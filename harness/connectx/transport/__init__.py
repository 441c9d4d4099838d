"""vfio-user, PCI, interrupts, guest memory: how the card is attached."""
