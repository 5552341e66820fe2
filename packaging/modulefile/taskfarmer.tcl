#%Module
# For Environment Modules and Lmod. Put it where modules are looked for, as taskfarmer/VERSION: it has the version from
# its name. Change the place of the releases (docs/install.md):
set releases /sw/taskfarmer

set version [file tail [module-info name]]
proc ModulesHelp { } {
    puts stderr "Runs the commands of a task list on one node or many: pytaskfarmer.py --help"
}
module-whatis "Runs a list of commands on one node or many: nothing lost, nothing recorded twice"
conflict taskfarmer
# not bin: the Python of the release would hide the user's own, from tasks too
prepend-path PATH $releases/$version/commands
