// SPDX-License-Identifier: GPL-2.0
/*
 * The cards: found and let go by the notifier of the auxiliary bus.
 *
 * mlx5_core makes an auxiliary device "mlx5_core.rdma" for a card once its
 * queues and commands work, whether mlx5_ib is loaded or not, and takes it
 * away before they go: at unbind, unplug and reset alike. Nothing is bound
 * to it here, so mlx5_ib is not kept out.
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

DEFINE_MUTEX(odp_devices_lock);	/* of the list; readers in probes use RCU */
LIST_HEAD(odp_devices);

/* Cards whose events carry flags and QPN, no token: Connect-IB and its VFs. */
static bool odp_dev_has_flags(struct pci_dev *pdev)
{
	return pdev->device == 0x1011 || pdev->device == 0x1012;
}

static struct odp_device *odp_dev_find(struct mlx5_core_dev *mdev)
{
	struct odp_device *dev;

	lockdep_assert_held(&odp_devices_lock);
	list_for_each_entry(dev, &odp_devices, entry)
		if (dev->mdev == mdev)
			return dev;
	return NULL;
}

static void odp_dev_add(struct mlx5_core_dev *mdev)
{
	struct odp_device *dev;

	mutex_lock(&odp_devices_lock);
	if (odp_dev_find(mdev))
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

static void odp_dev_remove(struct odp_device *dev)
{
	down_write(&dev->alive);
	odp_dev_leave_mode(dev);
	dev->gone = true;
	up_write(&dev->alive);
	/* What waits for its time finds the card gone. */
	odp_events_kick(dev);
	odp_device_put(dev);
}

static void odp_dev_del(struct mlx5_core_dev *mdev)
{
	struct odp_device *dev;

	mutex_lock(&odp_devices_lock);
	dev = odp_dev_find(mdev);
	if (dev)
		list_del_rcu(&dev->entry);
	mutex_unlock(&odp_devices_lock);
	if (dev)
		odp_dev_remove(dev);
}

static void release(struct kref *ref)
{
	struct odp_device *dev = container_of(ref, struct odp_device, ref);

	odp_policies_clear(dev);
	kfree_rcu(dev, rcu);
}

void odp_device_hold(struct odp_device *dev)
{
	kref_get(&dev->ref);
}

void odp_device_put(struct odp_device *dev)
{
	kref_put(&dev->ref, release);
}

struct odp_device *odp_device_get_by_name(const char *name)
{
	struct odp_device *dev, *found = NULL;

	mutex_lock(&odp_devices_lock);
	list_for_each_entry(dev, &odp_devices, entry)
		if (!strcmp(dev->name, name)) {
			kref_get(&dev->ref);
			found = dev;
			break;
		}
	mutex_unlock(&odp_devices_lock);
	return found;
}

/* The card below an RDMA device, with a reference; works in a probe. */
struct odp_device *odp_device_get_by_parent(const struct device *parent)
{
	struct odp_device *dev, *found = NULL;

	rcu_read_lock();
	list_for_each_entry_rcu(dev, &odp_devices, entry)
		if (dev->parent == parent) {
			if (kref_get_unless_zero(&dev->ref))
				found = dev;
			break;
		}
	rcu_read_unlock();
	return found;
}

int odp_set_mode(struct odp_device *dev, u8 mode, u32 pagefault_size,
		 struct netlink_ext_ack *extack)
{
	int err = 0;

	down_write(&dev->alive);
	if (dev->gone) {
		err = -ENODEV;
	} else if (mode != dev->mode) {
		/* First the new one: where it cannot be had, nothing changes. */
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

/* Sub-functions, whose parent is no PCI device, are left out. */
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

static int odp_bus_notifier(struct notifier_block *nb, unsigned long action, void *data)
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
 * A card that is there already. With its lock and devlink's held nobody
 * unbinds or resets it meanwhile, so a device that is still registered will
 * be announced to us when it goes.
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

/* Registered for its bus, which has no other name here; it matches nothing. */
static struct auxiliary_driver odp_bus_finder = {
	.name = "bus",
	.probe = odp_bus_finder_probe,
	.id_table = odp_bus_finder_ids,
};

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
	bus_for_each_dev(odp_bus_finder.driver.bus, NULL, NULL, odp_dev_add_present);
	return 0;
}

void odp_devices_exit(void)
{
	struct odp_device *dev;

	bus_unregister_notifier(odp_bus_finder.driver.bus, &odp_bus_nb);
	auxiliary_driver_unregister(&odp_bus_finder);
	while ((dev = list_first_entry_or_null(&odp_devices, struct odp_device,
					       entry))) {
		list_del_rcu(&dev->entry);
		odp_dev_remove(dev);
	}
}
