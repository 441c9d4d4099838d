// SPDX-License-Identifier: GPL-2.0
/*
 * The page-fault interface of mlx5 of 2015, for tests on today's kernels:
 * user space reads capabilities, receives page-fault events and resumes them.
 */
#include <linux/module.h>

#include "odp_test.h"

static int __init odp_test_init(void)
{
	int err = odp_events_init();

	if (err)
		return err;
	err = odp_probes_init();
	if (err)
		goto err_events;
	/* Before the devices: their events are sent to the family. */
	err = odp_nl_init();
	if (err)
		goto err_probes;
	err = odp_devices_init();
	if (err)
		goto err_nl;
	return 0;

err_nl:
	odp_nl_exit();
err_probes:
	odp_probes_exit();
err_events:
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
