/* SPDX-License-Identifier: GPL-2.0-only */
/* Stages of rdma_rxe. Ref: Linux 7.3 drivers/infiniband/sw/rxe/rxe_odp.c, rxe_task.c */
SPAN_OF_WORK(task, STAGE_TASKS, NOWHERE, 0, GIVEN)
SPAN(copy, STAGE_COPIES, NOWHERE, 0, STATUS)
SPAN(check, STAGE_CHECKS, NOWHERE, 0, STATUS)
