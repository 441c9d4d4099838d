// SPDX-License-Identifier: GPL-2.0
/*
 * The page-fault interface of mlx5 of 2015, for tests on today's kernels:
 * capabilities, page-fault events and their resume, in user space's hands.
 */
#include <linux/module.h>

#include "odp_test.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

static int __init odp_test_init(void)
{
	int err = odp_events_init();

	if (err)
		return err;
	err = odp_probes_init();
	if (err)
		goto no_observe;
	/* Before the cards, since their events go there. */
	err = odp_nl_init();
	if (err)
		goto no_netlink;
	err = odp_devices_init();
	if (err)
		goto no_devices;
	return 0;

no_devices:
	odp_nl_exit();
no_netlink:
	odp_probes_exit();
no_observe:
	odp_events_exit();
	return err;
}

static void __exit odp_test_exit(void)
{
	odp_devices_exit();
	odp_events_exit();
	odp_nl_exit();
	odp_probes_exit();
}

module_init(odp_test_init);
module_exit(odp_test_exit);
MODULE_AUTHOR("The odp-harness authors");
MODULE_DESCRIPTION("Page-fault interface of mlx5 for tests");
MODULE_LICENSE("GPL");
