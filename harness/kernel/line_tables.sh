# Write the line tables of a module (MODULE.lines) and the module with its debug information (MODULE.debug).
# Usage: line_tables.sh MODULE.ko LINKER_SCRIPT, in the root of the compiler that built it
module=$1
name=${module%.ko}
# Symbols of other modules stay undefined; ld complains of each and links all the same.
ld -T "$2" --noinhibit-exec --unresolved-symbols=ignore-all -e 0 -o "$module.elf" "$module" 2>/dev/null
nm -S "$module.elf" >"$name.lines" || exit
objdump --dwarf=decodedline --wide "$module.elf" >>"$name.lines" || exit
rm "$module.elf"
objcopy --compress-debug-sections=zlib "$module" "$name.debug"
