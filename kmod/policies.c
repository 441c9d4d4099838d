// SPDX-License-Identifier: GPL-2.0
/* Policies: actions by QPN, queue, token or key of a fault. */
#include <linux/netlink.h>
#include <linux/slab.h>

#include "odp_test.h"

#define MAX_POLICIES	4096

static bool odp_policy_matches(const struct odp_policy *policy,
			       const struct odp_event *event)
{
	bool flags_2015 = event->dev->flags_2015;

	switch (policy->selector) {
	case ODP_TEST_SELECT_QPN:
		return flags_2015 && event->queue == policy->value;
	case ODP_TEST_SELECT_QUEUE:
		return !flags_2015 && event->sub_type == ODP_SUB_WQE &&
		       event->queue == policy->value;
	case ODP_TEST_SELECT_TOKEN:
		return !flags_2015 && event->sub_type == ODP_SUB_RDMA &&
		       event->token == policy->value;
	case ODP_TEST_SELECT_KEY:
		return event->sub_type == ODP_SUB_MEMORY &&
		       event->key == policy->value;
	default:
		return false;
	}
}

/**
 * odp_policy_action() - Choose the action for an event
 * @dev: the device
 * @event: the event
 * @delay_us: set to the delay if there is a policy
 *
 * A policy whose selector matches wins over the one for any fault.
 *
 * Return: enum odp_test_action, ODP_TEST_ACTION_NONE without a policy.
 */
u8 odp_policy_action(struct odp_device *dev, const struct odp_event *event,
		     u32 *delay_us)
{
	struct odp_policy *policy, *found = NULL;
	u8 action = ODP_TEST_ACTION_NONE;

	mutex_lock(&dev->policy_lock);
	list_for_each_entry(policy, &dev->policies, entry) {
		if (odp_policy_matches(policy, event)) {
			found = policy;
			break;
		}
		if (policy->selector == ODP_TEST_SELECT_ANY)
			found = policy;
	}
	if (found) {
		action = found->action;
		*delay_us = found->delay_us;
	}
	mutex_unlock(&dev->policy_lock);
	return action;
}

static struct odp_policy *odp_policy_find(struct odp_device *dev, u8 selector,
					  u64 value)
{
	struct odp_policy *policy;

	list_for_each_entry(policy, &dev->policies, entry)
		if (policy->selector == selector && policy->value == value)
			return policy;
	return NULL;
}

/* Why events of the device cannot match the selector, or NULL. */
static const char *odp_policy_refusal(const struct odp_device *dev, u8 selector)
{
	if (selector == ODP_TEST_SELECT_QPN && !dev->flags_2015)
		return "this card's events carry no QPN: select queue, token or key";
	if (selector > ODP_TEST_SELECT_QPN && dev->flags_2015)
		return "this card's events carry a QPN and flags only: select qpn";
	return NULL;
}

/**
 * odp_policy_set() - Add a policy, or replace the one with this selector
 * @dev: the device
 * @selector: enum odp_test_selector
 * @value: QPN, queue, token or key; 0 for ODP_TEST_SELECT_ANY
 * @action: enum odp_test_action
 * @delay_us: of ODP_TEST_ACTION_DELAY
 * @extack: says why the policy is refused
 *
 * Return: 0; -EOPNOTSUPP if events of the device cannot match the selector;
 * -ENOSPC with MAX_POLICIES policies; -ENOMEM.
 */
int odp_policy_set(struct odp_device *dev, u8 selector, u64 value, u8 action,
		   u32 delay_us, struct netlink_ext_ack *extack)
{
	const char *why = odp_policy_refusal(dev, selector);
	struct odp_policy *policy;
	int err = 0;

	if (why) {
		extack->_msg = why;
		return -EOPNOTSUPP;
	}
	mutex_lock(&dev->policy_lock);
	policy = odp_policy_find(dev, selector, value);
	if (!policy && dev->n_policies >= MAX_POLICIES) {
		NL_SET_ERR_MSG(extack, "too many policies");
		err = -ENOSPC;
	} else if (!policy) {
		policy = kzalloc(sizeof(*policy), GFP_KERNEL);
		if (policy) {
			policy->selector = selector;
			policy->value = value;
			list_add_tail(&policy->entry, &dev->policies);
			dev->n_policies++;
		} else {
			err = -ENOMEM;
		}
	}
	if (!err) {
		policy->action = action;
		policy->delay_us = delay_us;
	}
	mutex_unlock(&dev->policy_lock);
	return err;
}

/**
 * odp_policy_del() - Delete a policy
 * @dev: the device
 * @selector: enum odp_test_selector
 * @value: QPN, queue, token or key; 0 for ODP_TEST_SELECT_ANY
 *
 * Return: 0, or -ENOENT.
 */
int odp_policy_del(struct odp_device *dev, u8 selector, u64 value)
{
	struct odp_policy *policy;

	mutex_lock(&dev->policy_lock);
	policy = odp_policy_find(dev, selector, value);
	if (policy) {
		list_del(&policy->entry);
		dev->n_policies--;
	}
	mutex_unlock(&dev->policy_lock);
	kfree(policy);
	return policy ? 0 : -ENOENT;
}

/**
 * odp_policies_clear() - Delete all policies
 * @dev: the device
 *
 * Context: The caller holds &odp_device.policy_lock or has dropped the last
 * reference.
 */
void odp_policies_clear(struct odp_device *dev)
{
	struct odp_policy *policy, *next;

	list_for_each_entry_safe(policy, next, &dev->policies, entry) {
		list_del(&policy->entry);
		kfree(policy);
	}
	dev->n_policies = 0;
}
