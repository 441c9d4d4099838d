# Run a command in the root of a toolchain; for a mount namespace of its own.
# Usage: enter_root.sh ROOT KERNEL_USR_SRC BUILD "HOST_FOLDER..." COMMAND [ARG...]
set -e
root=$1
for folder in $4; do
    mount --rbind "/$folder" "$root/$folder"
done
mount --rbind /dev "$root/dev"
mount --bind "$2" "$root/usr/src"
# A container may refuse a new /proc.
mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
mount --bind "$3" "$root/build"
shift 4
exec chroot "$root" "$@"
