// SPDX-License-Identifier: GPL-2.0
/*
 * Devices come and go with a notifier on the auxiliary bus; their modes.
 *
 * mlx5_core adds an auxiliary device "mlx5_core.rdma" once the queues and
 * commands of a device work, whether mlx5_ib is loaded or not, and deletes it
 * before they stop working: at unbind, unplug and reset alike. This module
 * does not bind to it, so mlx5_ib still can.
 */
#include <linux/auxiliary_bus.h>
#include <linux/device.h>
#include <linux/netlink.h>
#include <linux/pci.h>
#include <linux/rculist.h>
#include <linux/slab.h>
#include <net/devlink.h>

#include "odp_test.h"

#define RDMA_DEVICE	MLX5_ADEV_NAME ".rdma."

/* Connect-IB and its VFs: events carry flags and a QPN, no token. */
static bool odp_dev_has_flags(struct pci_dev *pdev)
{
	return pdev->device == 0x1011 || pdev->device == 0x1012;
}

static void odp_dev_add(struct mlx5_core_dev *mdev)
{
	struct odp_device *dev;

	mutex_lock(&odp_devices_lock);
	if (odp_device_find(mdev))
		goto out;
	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev) {
		dev_warn(mdev->device, "mlx5_odp_test: no memory\n");
		goto out;
	}
	kref_init(&dev->ref);
	dev->mdev = mdev;
	dev->parent = mdev->device;
	strscpy(dev->name, dev_name(mdev->device), sizeof(dev->name));
	dev->flags_2015 = odp_dev_has_flags(mdev->pdev);
	init_rwsem(&dev->alive);
	mutex_init(&dev->policy_lock);
	INIT_LIST_HEAD(&dev->policies);
	spin_lock_init(&dev->eq_lock);
	spin_lock_init(&dev->lock);
	INIT_LIST_HEAD(&dev->pending);
	INIT_LIST_HEAD(&dev->waiting);
	INIT_WORK(&dev->work, odp_events_dispatch);
	list_add_tail_rcu(&dev->entry, &odp_devices);
out:
	mutex_unlock(&odp_devices_lock);
}

static void odp_dev_leave_mode(struct odp_device *dev)
{
	if (dev->mode == ODP_TEST_MODE_OWN)
		odp_eq_stop(dev);
	else if (dev->mode == ODP_TEST_MODE_OBSERVE)
		odp_probes_stop();
	WRITE_ONCE(dev->mode, ODP_TEST_MODE_OFF);
}

static void odp_dev_shutdown(struct odp_device *dev)
{
	down_write(&dev->alive);
	odp_dev_leave_mode(dev);
	dev->gone = true;
	up_write(&dev->alive);
	/* Delayed resumes run now and find @gone set. */
	odp_events_kick(dev);
	odp_device_put(dev);
}

static void odp_dev_del(struct mlx5_core_dev *mdev)
{
	struct odp_device *dev;

	mutex_lock(&odp_devices_lock);
	dev = odp_device_find(mdev);
	if (dev)
		list_del_rcu(&dev->entry);
	mutex_unlock(&odp_devices_lock);
	if (dev)
		odp_dev_shutdown(dev);
}

/**
 * odp_set_mode() - Change the mode of a device
 * @dev: the device
 * @mode: enum odp_test_mode
 * @pagefault_size: of ODP_TEST_MODE_OBSERVE: bytes of struct mlx5_pagefault
 * @extack: says why the mode cannot be entered
 *
 * Return: 0, or an errno; then the old mode stays.
 */
int odp_set_mode(struct odp_device *dev, u8 mode, u32 pagefault_size,
		 struct netlink_ext_ack *extack)
{
	int err = 0;

	down_write(&dev->alive);
	if (dev->gone) {
		err = -ENODEV;
	} else if (mode != dev->mode) {
		/* Enter the new mode first: if that fails, nothing changed. */
		if (mode == ODP_TEST_MODE_OWN)
			err = odp_eq_start(dev, extack);
		else if (mode == ODP_TEST_MODE_OBSERVE)
			err = odp_probes_start(pagefault_size, extack);
		if (!err) {
			odp_dev_leave_mode(dev);
			WRITE_ONCE(dev->mode, mode);
		}
	}
	up_write(&dev->alive);
	return err;
}

/* Skip sub-functions: their parent is not a PCI device. */
static bool odp_adev_is_rdma(struct device *device)
{
	return device->parent && dev_is_pci(device->parent) &&
	       !strncmp(dev_name(device), RDMA_DEVICE, strlen(RDMA_DEVICE));
}

static struct mlx5_core_dev *odp_adev_mdev(struct device *device)
{
	return container_of(to_auxiliary_dev(device), struct mlx5_adev,
			    adev)->mdev;
}

static int odp_bus_notifier(struct notifier_block *nb, unsigned long action,
			    void *data)
{
	struct device *device = data;

	if (!odp_adev_is_rdma(device))
		return NOTIFY_DONE;
	if (action == BUS_NOTIFY_ADD_DEVICE)
		odp_dev_add(odp_adev_mdev(device));
	else if (action == BUS_NOTIFY_DEL_DEVICE)
		odp_dev_del(odp_adev_mdev(device));
	return NOTIFY_DONE;
}

static struct notifier_block odp_bus_nb = { .notifier_call = odp_bus_notifier };

/*
 * Add a device that was there before the module. The locks of the PCI device
 * and of devlink exclude unbind and reset: if the auxiliary device is still
 * registered under them, the notifier will see its deletion.
 */
static int odp_dev_add_present(struct device *device, void *unused)
{
	struct device *parent = device->parent;
	struct mlx5_core_dev *mdev;

	if (!odp_adev_is_rdma(device))
		return 0;
	device_lock(parent);
	mdev = parent->driver ? dev_get_drvdata(parent) : NULL;
	if (mdev) {
		devl_lock(priv_to_devlink(mdev));
		if (device_is_registered(device))
			odp_dev_add(mdev);
		devl_unlock(priv_to_devlink(mdev));
	}
	device_unlock(parent);
	return 0;
}

static int odp_bus_finder_probe(struct auxiliary_device *adev,
				const struct auxiliary_device_id *id)
{
	return -ENODEV;
}

static const struct auxiliary_device_id odp_bus_finder_ids[] = {
	{ .name = KBUILD_MODNAME ".none" },
	{}
};

/*
 * auxiliary_bus_type is not exported: a driver that matches nothing has a
 * pointer to it.
 */
static struct auxiliary_driver odp_bus_finder = {
	.name = "bus",
	.probe = odp_bus_finder_probe,
	.id_table = odp_bus_finder_ids,
};

/**
 * odp_devices_init() - Follow the auxiliary bus and add the present devices
 *
 * Return: 0 or an errno.
 */
int odp_devices_init(void)
{
	int err = auxiliary_driver_register(&odp_bus_finder);

	if (err)
		return err;
	err = bus_register_notifier(odp_bus_finder.driver.bus, &odp_bus_nb);
	if (err) {
		auxiliary_driver_unregister(&odp_bus_finder);
		return err;
	}
	bus_for_each_dev(odp_bus_finder.driver.bus, NULL, NULL,
			 odp_dev_add_present);
	return 0;
}

/**
 * odp_devices_exit() - Stop following the bus and remove all devices
 *
 * Context: Commands and probes may still read the list.
 */
void odp_devices_exit(void)
{
	struct odp_device *dev;

	bus_unregister_notifier(odp_bus_finder.driver.bus, &odp_bus_nb);
	auxiliary_driver_unregister(&odp_bus_finder);
	for (;;) {
		mutex_lock(&odp_devices_lock);
		dev = list_first_entry_or_null(&odp_devices, struct odp_device,
					       entry);
		if (dev)
			list_del_rcu(&dev->entry);
		mutex_unlock(&odp_devices_lock);
		if (!dev)
			break;
		odp_dev_shutdown(dev);
	}
}
