/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by the files of the generic netlink family. */
#ifndef MLX5_ODP_TEST_NL_H
#define MLX5_ODP_TEST_NL_H

#include <net/genetlink.h>

#include "odp_test.h"

/* nl_family.c */
extern struct genl_family odp_family;

/* nl_fill.c */
int odp_fill_device(struct sk_buff *skb, struct odp_device *dev);
int odp_fill_caps(struct sk_buff *skb, struct odp_device *dev);
int odp_fill_resume(struct sk_buff *skb, const struct odp_resume *resume);
int odp_fill_event(struct sk_buff *skb, const struct odp_event *event);

/* nl_cmds.c */
int odp_nl_get_device_doit(struct sk_buff *request, struct genl_info *info);
int odp_nl_get_device_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int odp_nl_get_caps_doit(struct sk_buff *request, struct genl_info *info);
int odp_nl_set_mode_doit(struct sk_buff *request, struct genl_info *info);
int odp_nl_set_policy_doit(struct sk_buff *request, struct genl_info *info);
int odp_nl_del_policy_doit(struct sk_buff *request, struct genl_info *info);
int odp_nl_resume_doit(struct sk_buff *request, struct genl_info *info);

#endif
