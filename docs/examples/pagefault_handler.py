"""A page-fault handler for a ConnectX in Python: it resumes every fault, but fails those of one QP.

On a machine with the card, as root, with kmod/ loaded (docs/kmod.md):

    ./odp-harness kmod load
    ./odp-harness python docs/examples/pagefault_handler.py 0000:01:00.0 --fail-queue 0x1a
"""

import argparse

from harness.guest.kmod import odpnl


def main() -> None:
    """Take over the card's page faults until Ctrl-C; they go back to the driver at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device", help="PCI address, as `odp-harness pagefault devices` prints it")
    parser.add_argument(
        "--fail-queue", type=lambda text: int(text, 0), help="resume faults of this queue with error"
    )
    arguments = parser.parse_args()
    with odpnl.own(arguments.device) as faults:
        for fault in faults:
            failed = arguments.fail_queue is not None and fault.fields.get("queue") == arguments.fail_queue
            answer = fault.resume(error=failed)
            print(f"{fault.sub_type} token={fault.fields['token']:#x} error={failed} status={answer.status}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
