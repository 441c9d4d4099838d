// SPDX-License-Identifier: GPL-2.0
/* Attributes of replies and events. */
#include <net/netlink.h>

#include "nl.h"

static int odp_fill_u64(struct sk_buff *skb, int attr, u64 value)
{
	return nla_put_u64_64bit(skb, attr, value, ODP_TEST_A_PAD);
}

static int odp_fill_stats(struct sk_buff *skb, struct odp_device *dev)
{
	struct nlattr *nest = nla_nest_start(skb, ODP_TEST_A_STATS);
	unsigned int stat;

	if (!nest)
		return -EMSGSIZE;
	/* ODP_TEST_STAT_UNSPEC is padding. */
	for (stat = 1; stat <= ODP_TEST_STAT_MAX; stat++)
		if (nla_put_u64_64bit(skb, stat,
				      atomic64_read(&dev->stats[stat]),
				      ODP_TEST_STAT_UNSPEC))
			return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

/**
 * odp_fill_device() - Add the attributes of a GET_DEVICE reply
 * @skb: the message
 * @dev: the device
 *
 * Return: 0 or -EMSGSIZE.
 */
int odp_fill_device(struct sk_buff *skb, struct odp_device *dev)
{
	u8 form = dev->flags_2015 ? ODP_TEST_FORM_2015 :
				    ODP_TEST_FORM_TRANSPORT;
	u8 page[ODP_CAPS_BYTES];

	down_read(&dev->alive);
	if (!dev->gone) {
		odp_driver_caps(dev, false, page);
		if (odp_memory_scheme(page))
			form = ODP_TEST_FORM_MEMORY;
	}
	up_read(&dev->alive);
	if (nla_put_string(skb, ODP_TEST_A_DEVICE, dev->name) ||
	    nla_put_u8(skb, ODP_TEST_A_FORM, form) ||
	    nla_put_u8(skb, ODP_TEST_A_MODE, READ_ONCE(dev->mode)) ||
	    nla_put_u32(skb, ODP_TEST_A_QUEUED, READ_ONCE(dev->queued)))
		return -EMSGSIZE;
	return odp_fill_stats(skb, dev);
}

static int odp_fill_scheme(struct sk_buff *skb, int attr, const void *page,
			   unsigned int scheme)
{
	struct nlattr *nest = nla_nest_start(skb, attr);
	unsigned int transport;

	if (!nest)
		return -EMSGSIZE;
	for (transport = 0; transport < ODP_TEST_TRANSPORT_MAX; transport++)
		if (nla_put_u32(skb, transport + 1,
				odp_transport_caps(page, scheme, transport)))
			return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int odp_fill_caps_page(struct sk_buff *skb, int attr, const void *page)
{
	struct nlattr *nest = nla_nest_start(skb, attr);

	if (!nest ||
	    odp_fill_scheme(skb, ODP_TEST_SCHEME_TRANSPORT, page, 0) ||
	    odp_fill_scheme(skb, ODP_TEST_SCHEME_MEMORY, page, 1) ||
	    nla_put_u8(skb, ODP_TEST_SCHEME_MEM_PAGE_FAULT,
		       odp_memory_scheme(page)))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

/**
 * odp_fill_caps() - Add the attributes of a GET_CAPS reply
 * @skb: the message
 * @dev: the device
 *
 * Return: 0, -ENODEV if the device is gone, -EMSGSIZE, or the errno of the
 * query.
 */
int odp_fill_caps(struct sk_buff *skb, struct odp_device *dev)
{
	u8 page[ODP_CAPS_BYTES];
	unsigned int max;
	int err = 0;

	down_read(&dev->alive);
	if (dev->gone)
		err = -ENODEV;
	for (max = 0; max < 2 && !err; max++) {
		err = odp_query_caps(dev, max, page);
		if (!err)
			err = odp_fill_caps_page(skb,
						 max ? ODP_TEST_A_CAPS_MAX :
						       ODP_TEST_A_CAPS_CUR,
						 page);
		if (!err)
			err = nla_put(skb,
				      max ? ODP_TEST_A_CAPS_MAX_RAW :
					    ODP_TEST_A_CAPS_CUR_RAW,
				      sizeof(page), page);
		if (err)
			break;
		odp_driver_caps(dev, max, page);
		err = nla_put(skb,
			      max ? ODP_TEST_A_CAPS_MAX_DRIVER :
				    ODP_TEST_A_CAPS_CUR_DRIVER,
			      sizeof(page), page);
	}
	up_read(&dev->alive);
	return err;
}

/**
 * odp_fill_resume() - Add the attributes of a RESUME reply
 * @skb: the message
 * @resume: the command, executed
 *
 * Return: 0 or -EMSGSIZE.
 */
int odp_fill_resume(struct sk_buff *skb, const struct odp_resume *resume)
{
	if (nla_put_u8(skb, ODP_TEST_A_STATUS, resume->status) ||
	    nla_put_u32(skb, ODP_TEST_A_SYNDROME, resume->syndrome) ||
	    nla_put_s32(skb, ODP_TEST_A_RET, resume->ret))
		return -EMSGSIZE;
	return 0;
}

static int odp_fill_detail(struct sk_buff *skb, const struct odp_event *event)
{
	switch (event->sub_type) {
	case ODP_SUB_WQE:
		return nla_put_u16(skb, ODP_TEST_A_WQE_INDEX,
				   event->wqe_index) ||
		       nla_put_u32(skb, ODP_TEST_A_PACKET_LENGTH,
				   event->packet_length);
	case ODP_SUB_RDMA:
		return nla_put_u32(skb, ODP_TEST_A_RKEY, event->rkey) ||
		       nla_put_u32(skb, ODP_TEST_A_PACKET_LENGTH,
				   event->packet_length) ||
		       nla_put_u32(skb, ODP_TEST_A_OP_LENGTH,
				   event->op_length) ||
		       odp_fill_u64(skb, ODP_TEST_A_VA, event->va);
	case ODP_SUB_MEMORY:
		return nla_put_u32(skb, ODP_TEST_A_KEY, event->key) ||
		       nla_put_u8(skb, ODP_TEST_A_FLAGS, event->flags) ||
		       nla_put_u32(skb, ODP_TEST_A_DEMAND, event->demand) ||
		       nla_put_u32(skb, ODP_TEST_A_PRE, event->pre) ||
		       nla_put_u32(skb, ODP_TEST_A_POST, event->post) ||
		       odp_fill_u64(skb, ODP_TEST_A_VA, event->va);
	}
	return 0;
}

/**
 * odp_fill_event() - Add the attributes of an EVENT message
 * @skb: the message
 * @event: the event
 *
 * Return: 0 or -EMSGSIZE.
 */
int odp_fill_event(struct sk_buff *skb, const struct odp_event *event)
{
	if (nla_put_string(skb, ODP_TEST_A_DEVICE, event->dev->name) ||
	    nla_put_u8(skb, ODP_TEST_A_SOURCE, event->source) ||
	    nla_put_u8(skb, ODP_TEST_A_ACTION, event->action) ||
	    nla_put_u8(skb, ODP_TEST_A_FORM,
		       odp_event_form(event->dev, event)) ||
	    nla_put_u8(skb, ODP_TEST_A_SUB_TYPE, event->sub_type) ||
	    nla_put_u8(skb, ODP_TEST_A_TYPE, event->type) ||
	    nla_put_u32(skb, ODP_TEST_A_QUEUE, event->queue) ||
	    nla_put_u32(skb, ODP_TEST_A_BYTES_COMMITTED,
			event->bytes_committed) ||
	    odp_fill_u64(skb, ODP_TEST_A_TOKEN, event->token) ||
	    odp_fill_u64(skb, ODP_TEST_A_SEEN_NS, event->seen_ns) ||
	    odp_fill_u64(skb, ODP_TEST_A_DISPATCHED_NS, event->dispatched_ns) ||
	    odp_fill_u64(skb, ODP_TEST_A_SENT_NS, ktime_get_ns()) ||
	    odp_fill_detail(skb, event))
		return -EMSGSIZE;
	if (event->source == ODP_TEST_SOURCE_RESUME && event->error &&
	    nla_put_flag(skb, ODP_TEST_A_ERROR))
		return -EMSGSIZE;
	if (event->has_raw &&
	    nla_put(skb, ODP_TEST_A_RAW, sizeof(event->raw), event->raw))
		return -EMSGSIZE;
	return 0;
}
