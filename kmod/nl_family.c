// SPDX-License-Identifier: GPL-2.0
/* The generic netlink family and its multicast group. */
#include <net/genetlink.h>
#include <net/sock.h>

#include "nl.h"

static const struct genl_multicast_group odp_mcgrps[] = {
	{ .name = ODP_TEST_GROUP, .flags = GENL_MCAST_CAP_NET_ADMIN },
};

/* Its ops are in nl_ops.c. */
struct genl_family odp_family __ro_after_init = {
	.name = ODP_TEST_FAMILY,
	.version = ODP_TEST_VERSION,
	.module = THIS_MODULE,
	.parallel_ops = true,
	.resv_start_op = ODP_TEST_CMD_MAX + 1,
	.mcgrps = odp_mcgrps,
	.n_mcgrps = ARRAY_SIZE(odp_mcgrps),
};

/**
 * odp_nl_event() - Send an event to the listeners
 * @event: the event
 *
 * Return: 0; -ESRCH without a listener; -ENOBUFS if one had no room; -ENOMEM.
 */
int odp_nl_event(struct odp_event *event)
{
	struct sk_buff *skb;
	void *header;

	if (!genl_has_listeners(&odp_family, &init_net, 0))
		return -ESRCH;
	skb = genlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!skb)
		return -ENOMEM;
	header = genlmsg_put(skb, 0, 0, &odp_family, 0, ODP_TEST_CMD_EVENT);
	if (!header || odp_fill_event(skb, event)) {
		nlmsg_free(skb);
		return -ENOMEM;
	}
	genlmsg_end(skb, header);
	return genlmsg_multicast(&odp_family, skb, 0, 0, GFP_KERNEL);
}
