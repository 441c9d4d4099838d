// SPDX-License-Identifier: GPL-2.0
/* The list of devices: lookup and references. */
#include <linux/lockdep.h>
#include <linux/rculist.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "odp_test.h"

/* Protects odp_devices; probes read the list under RCU. */
DEFINE_MUTEX(odp_devices_lock);
LIST_HEAD(odp_devices);

static void odp_device_release(struct kref *ref)
{
	struct odp_device *dev = container_of(ref, struct odp_device, ref);

	odp_policies_clear(dev);
	kfree_rcu(dev, rcu);
}

/**
 * odp_device_hold() - Take one more reference
 * @dev: a device of which the caller holds a reference or its lock
 */
void odp_device_hold(struct odp_device *dev)
{
	kref_get(&dev->ref);
}

/**
 * odp_device_put() - Drop a reference
 * @dev: the device; freed after a grace period with the last reference
 */
void odp_device_put(struct odp_device *dev)
{
	kref_put(&dev->ref, odp_device_release);
}

/**
 * odp_device_find() - Look up a device by mlx5_core's device
 * @mdev: device of mlx5_core
 *
 * Context: The caller holds odp_devices_lock.
 * Return: the device, without a reference, or NULL.
 */
struct odp_device *odp_device_find(const struct mlx5_core_dev *mdev)
{
	struct odp_device *dev;

	lockdep_assert_held(&odp_devices_lock);
	list_for_each_entry(dev, &odp_devices, entry)
		if (dev->mdev == mdev)
			return dev;
	return NULL;
}

/**
 * odp_device_get_by_name() - Look up a device by its bus name
 * @name: bus name, as 0000:01:00.0
 *
 * Return: the device, with a reference, or NULL.
 */
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

/**
 * odp_device_get_by_parent() - Look up the device below an RDMA device
 * @parent: parent of the RDMA device; not dereferenced
 *
 * Context: Any; called from kprobes.
 * Return: the device, with a reference, or NULL.
 */
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
