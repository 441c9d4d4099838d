/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoints; their fields are stable. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM mlx5_odp_test

#if !defined(MLX5_ODP_TEST_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define MLX5_ODP_TEST_TRACE_H

#include <linux/tracepoint.h>

#include "odp_test.h"

TRACE_EVENT(odp_event,
	TP_PROTO(const struct odp_event *event),
	TP_ARGS(event),
	TP_STRUCT__entry(
		__array(char, device, ODP_NAME_BYTES)
		__field(u64, token)
		__field(u64, va)
		__field(u64, seen_ns)
		__field(u32, queue)
		__field(u32, bytes_committed)
		__field(u32, key)
		__field(u8, source)
		__field(u8, sub_type)
		__field(u8, type)
		__field(u8, action)
	),
	TP_fast_assign(
		memcpy(__entry->device, event->dev->name,
		       sizeof(__entry->device));
		__entry->token = event->token;
		__entry->va = event->va;
		__entry->seen_ns = event->seen_ns;
		__entry->queue = event->queue;
		__entry->bytes_committed = event->bytes_committed;
		__entry->key = event->sub_type == ODP_SUB_MEMORY ?
			       event->key : event->rkey;
		__entry->source = event->source;
		__entry->sub_type = event->sub_type;
		__entry->type = event->type;
		__entry->action = event->action;
	),
	TP_printk("%s source=%u sub_type=%u type=%u token=%#llx queue=%#x key=%#x va=%#llx "
		  "committed=%u action=%u",
		  __entry->device, __entry->source, __entry->sub_type,
		  __entry->type, __entry->token, __entry->queue, __entry->key,
		  __entry->va, __entry->bytes_committed, __entry->action)
);

TRACE_EVENT(odp_resume,
	TP_PROTO(const struct odp_device *dev, const struct odp_resume *resume),
	TP_ARGS(dev, resume),
	TP_STRUCT__entry(
		__array(char, device, ODP_NAME_BYTES)
		__field(u64, token)
		__field(u32, queue)
		__field(u32, syndrome)
		__field(s32, ret)
		__field(u8, form)
		__field(u8, type)
		__field(u8, error)
		__field(u8, status)
	),
	TP_fast_assign(
		memcpy(__entry->device, dev->name, sizeof(__entry->device));
		__entry->token = resume->token;
		__entry->queue = resume->queue;
		__entry->syndrome = resume->syndrome;
		__entry->ret = resume->ret;
		__entry->form = resume->form;
		__entry->type = resume->type;
		__entry->error = resume->error;
		__entry->status = resume->status;
	),
	TP_printk("%s form=%u type=%u token=%#llx queue=%#x error=%u "
		  "ret=%d status=%#x syndrome=%#x",
		  __entry->device, __entry->form, __entry->type,
		  __entry->token, __entry->queue, __entry->error,
		  __entry->ret, __entry->status, __entry->syndrome)
);

#endif

#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
