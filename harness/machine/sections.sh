# Print "MODULE SECTION ADDRESS" for each section of the modules in the arguments, then /proc/modules.
for module in "$@"; do
    (
        cd "/sys/module/$module/sections" 2>/dev/null || exit
        for section in .[a-z]*; do
            echo "$module $section $(cat "$section")"
        done
    )
done
cat /proc/modules
