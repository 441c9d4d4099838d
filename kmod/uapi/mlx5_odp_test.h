/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Generic netlink family "mlx5_odp_test".
 *
 * All commands need CAP_NET_ADMIN. All take ODP_TEST_A_DEVICE, except
 * GET_DEVICE as a dump. The client is harness/guest/kmod/odpnl.py.
 */
#ifndef _UAPI_MLX5_ODP_TEST_H
#define _UAPI_MLX5_ODP_TEST_H

#define ODP_TEST_FAMILY		"mlx5_odp_test"
#define ODP_TEST_VERSION	1
#define ODP_TEST_GROUP		"events"

enum odp_test_cmd {
	ODP_TEST_CMD_UNSPEC,
	ODP_TEST_CMD_GET_DEVICE,	/* reply: A_DEVICE..A_STATS */
	ODP_TEST_CMD_GET_CAPS,		/* reply: A_CAPS_* */
	ODP_TEST_CMD_SET_MODE,		/* A_MODE; observe: A_PAGEFAULT_SIZE */
	ODP_TEST_CMD_SET_POLICY,	/* A_SELECTOR..A_DELAY_US */
	ODP_TEST_CMD_DEL_POLICY,	/* A_SELECTOR, A_VALUE; all without */
	ODP_TEST_CMD_RESUME,		/* A_FORM..; reply: A_STATUS.. */
	ODP_TEST_CMD_EVENT,		/* multicast only */
	__ODP_TEST_CMD_MAX,
};

#define ODP_TEST_CMD_MAX (__ODP_TEST_CMD_MAX - 1)

enum odp_test_attr {
	ODP_TEST_A_UNSPEC,
	ODP_TEST_A_PAD,
	ODP_TEST_A_DEVICE,		/* string: bus name, as 0000:01:00.0 */
	ODP_TEST_A_FORM,		/* u8: enum odp_test_form */
	ODP_TEST_A_MODE,		/* u8: enum odp_test_mode */
	ODP_TEST_A_PAGEFAULT_SIZE,	/* u32: size of struct mlx5_pagefault */
	ODP_TEST_A_QUEUED,		/* u32: events not dispatched yet */
	ODP_TEST_A_STATS,		/* nest: enum odp_test_stat, u64 */

	ODP_TEST_A_CAPS_MAX,		/* nest: enum odp_test_scheme */
	ODP_TEST_A_CAPS_CUR,
	ODP_TEST_A_CAPS_MAX_RAW,	/* binary: the page of the device */
	ODP_TEST_A_CAPS_CUR_RAW,
	ODP_TEST_A_CAPS_MAX_DRIVER,	/* binary: mlx5_core's copy */
	ODP_TEST_A_CAPS_CUR_DRIVER,

	ODP_TEST_A_SELECTOR,		/* u8: enum odp_test_selector */
	ODP_TEST_A_VALUE,		/* u64: QPN, queue, token or key */
	ODP_TEST_A_ACTION,		/* u8: enum odp_test_action */
	ODP_TEST_A_DELAY_US,		/* u32: delay of ACTION_DELAY */

	ODP_TEST_A_TOKEN,		/* u64 */
	ODP_TEST_A_TYPE,		/* u8: three bits; in 2015 the flags */
	ODP_TEST_A_QUEUE,		/* u32: work queue, or QPN of 2015 */
	ODP_TEST_A_ERROR,		/* flag */
	ODP_TEST_A_STATUS,		/* u8: command status */
	ODP_TEST_A_SYNDROME,		/* u32 */
	ODP_TEST_A_RET,			/* s32: errno of mlx5_core */

	ODP_TEST_A_SOURCE,		/* u8: enum odp_test_source */
	ODP_TEST_A_SUB_TYPE,		/* u8: 0 WQE, 1 RDMA, 2 memory */
	ODP_TEST_A_BYTES_COMMITTED,	/* u32 */
	ODP_TEST_A_PACKET_LENGTH,	/* u32 */
	ODP_TEST_A_WQE_INDEX,		/* u16 */
	ODP_TEST_A_RKEY,		/* u32 */
	ODP_TEST_A_OP_LENGTH,		/* u32 */
	ODP_TEST_A_VA,			/* u64 */
	ODP_TEST_A_KEY,			/* u32: memory form */
	ODP_TEST_A_FLAGS,		/* u8: memory form; bit 7: last */
	ODP_TEST_A_DEMAND,		/* u32: bytes, memory form */
	ODP_TEST_A_PRE,			/* u32: bytes before */
	ODP_TEST_A_POST,		/* u32: bytes behind */
	ODP_TEST_A_RAW,			/* binary: 64 bytes; own mode only */
	/* CLOCK_MONOTONIC */
	ODP_TEST_A_SEEN_NS,		/* u64: in the interrupt or the probe */
	ODP_TEST_A_DISPATCHED_NS,	/* u64: in the worker */
	ODP_TEST_A_SENT_NS,		/* u64: of the message */
	__ODP_TEST_A_MAX,
};

#define ODP_TEST_A_MAX (__ODP_TEST_A_MAX - 1)

enum odp_test_form {
	ODP_TEST_FORM_2015,		/* QPN and flags */
	ODP_TEST_FORM_TRANSPORT,	/* type, queue, token of 24 bits */
	ODP_TEST_FORM_MEMORY,		/* token of 48 bits */
	__ODP_TEST_FORM_MAX,
};

#define ODP_TEST_FORM_MAX (__ODP_TEST_FORM_MAX - 1)

enum odp_test_mode {
	ODP_TEST_MODE_OFF,
	ODP_TEST_MODE_OBSERVE,
	ODP_TEST_MODE_OWN,
	__ODP_TEST_MODE_MAX,
};

#define ODP_TEST_MODE_MAX (__ODP_TEST_MODE_MAX - 1)

enum odp_test_selector {
	ODP_TEST_SELECT_ANY,
	ODP_TEST_SELECT_QPN,		/* 2015 events */
	ODP_TEST_SELECT_QUEUE,		/* WQE events */
	ODP_TEST_SELECT_TOKEN,		/* RDMA events */
	ODP_TEST_SELECT_KEY,		/* memory events */
	__ODP_TEST_SELECT_MAX,
};

#define ODP_TEST_SELECT_MAX (__ODP_TEST_SELECT_MAX - 1)

enum odp_test_action {
	ODP_TEST_ACTION_NONE,		/* no policy: not resumed */
	ODP_TEST_ACTION_FORWARD,	/* user space resumes */
	ODP_TEST_ACTION_RESUME,
	ODP_TEST_ACTION_FAIL,
	ODP_TEST_ACTION_DELAY,		/* resume after A_DELAY_US */
	ODP_TEST_ACTION_DROP,
	ODP_TEST_ACTION_DOUBLE,		/* resume twice */
	__ODP_TEST_ACTION_MAX,
};

#define ODP_TEST_ACTION_MAX (__ODP_TEST_ACTION_MAX - 1)

enum odp_test_source {
	ODP_TEST_SOURCE_OWN,		/* from the module's event queue */
	ODP_TEST_SOURCE_OBSERVED,	/* mlx5_ib starts to handle the fault */
	ODP_TEST_SOURCE_RESUME,		/* mlx5_ib resumes the fault */
	__ODP_TEST_SOURCE_MAX,
};

#define ODP_TEST_SOURCE_MAX (__ODP_TEST_SOURCE_MAX - 1)

enum odp_test_scheme {
	ODP_TEST_SCHEME_UNSPEC,
	ODP_TEST_SCHEME_TRANSPORT,	/* nest: enum odp_test_transport, u32 */
	ODP_TEST_SCHEME_MEMORY,
	ODP_TEST_SCHEME_MEM_PAGE_FAULT,	/* u8: the memory scheme is on */
	__ODP_TEST_SCHEME_MAX,
};

#define ODP_TEST_SCHEME_MAX (__ODP_TEST_SCHEME_MAX - 1)

enum odp_test_transport {
	ODP_TEST_TRANSPORT_UNSPEC,
	ODP_TEST_TRANSPORT_RC,
	ODP_TEST_TRANSPORT_UC,
	ODP_TEST_TRANSPORT_UD,
	ODP_TEST_TRANSPORT_XRC,
	ODP_TEST_TRANSPORT_DC,
	__ODP_TEST_TRANSPORT_MAX,
};

#define ODP_TEST_TRANSPORT_MAX (__ODP_TEST_TRANSPORT_MAX - 1)

/* Operations of a transport. 2015 had the first four. */
#define ODP_TEST_CAP_SEND		(1 << 0)
#define ODP_TEST_CAP_RECEIVE		(1 << 1)
#define ODP_TEST_CAP_WRITE		(1 << 2)
#define ODP_TEST_CAP_READ		(1 << 3)
#define ODP_TEST_CAP_ATOMIC		(1 << 4)
#define ODP_TEST_CAP_SRQ_RECEIVE	(1 << 5)

enum odp_test_stat {
	ODP_TEST_STAT_UNSPEC,
	ODP_TEST_STAT_EVENTS,		/* of the module's event queue */
	ODP_TEST_STAT_HANDLED,		/* resumed or failed by a policy */
	ODP_TEST_STAT_FORWARDED,	/* delivered to user space */
	ODP_TEST_STAT_UNRESOLVED,	/* no policy, or no listener */
	ODP_TEST_STAT_DROPPED,		/* dropped by policy */
	ODP_TEST_STAT_DELAYED,		/* resumed after a delay, or waiting */
	ODP_TEST_STAT_LOST_MEMORY,	/* no memory for the event */
	ODP_TEST_STAT_OVERRUNS,		/* messages that a listener missed */
	ODP_TEST_STAT_UNKNOWN,		/* unknown sub-type; only reported */
	ODP_TEST_STAT_RESUMES,		/* resume commands which succeeded */
	ODP_TEST_STAT_RESUMES_REFUSED,	/* resume commands which failed */
	ODP_TEST_STAT_OBSERVED,		/* faults of mlx5_ib */
	ODP_TEST_STAT_OBSERVED_RESUMES,	/* resumes of mlx5_ib */
	ODP_TEST_STAT_UNDECODED,	/* observed, but not as in the layout */
	ODP_TEST_STAT_PROBE_NS,		/* time spent in the probes, ns */
	__ODP_TEST_STAT_MAX,
};

#define ODP_TEST_STAT_MAX (__ODP_TEST_STAT_MAX - 1)

/* Resume flags of 2015; also the type of transport events. */
#define ODP_TEST_FAULT_REQUESTOR	(1 << 0)
#define ODP_TEST_FAULT_WRITE		(1 << 1)
#define ODP_TEST_FAULT_RDMA		(1 << 2)

#endif
