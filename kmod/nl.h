/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of the netlink family share. */
#ifndef MLX5_ODP_TEST_NL_H
#define MLX5_ODP_TEST_NL_H

#include <net/genetlink.h>

#include "odp_test.h"

extern struct genl_family odp_family;

/* nl_fill.c: -EMSGSIZE where there is no room */
int odp_put_card(struct sk_buff *skb, struct odp_device *dev);
int odp_put_pages(struct sk_buff *skb, struct odp_device *dev);
int odp_put_resumed(struct sk_buff *skb, const struct odp_resume *resume);
int odp_put_event(struct sk_buff *skb, const struct odp_event *event);

/* nl_cmds.c */
int odp_get_card(struct sk_buff *request, struct genl_info *info);
int odp_dump_devices(struct sk_buff *skb, struct netlink_callback *cb);
int odp_get_caps(struct sk_buff *request, struct genl_info *info);
int odp_do_mode(struct sk_buff *request, struct genl_info *info);
int odp_do_policy(struct sk_buff *request, struct genl_info *info);
int odp_do_forget(struct sk_buff *request, struct genl_info *info);
int odp_do_resume(struct sk_buff *request, struct genl_info *info);

#endif
