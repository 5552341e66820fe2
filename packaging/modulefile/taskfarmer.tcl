#%Module
# For Environment Modules and Lmod. Copy it to your module path as taskfarmer/VERSION: it takes the version from its own
# name. Change the directory of the releases (docs/install.md):
set releases /sw/taskfarmer

set version [file tail [module-info name]]
proc ModulesHelp { } {
    puts stderr "Runs the commands of a task list on one node or many: pytaskfarmer.py --help"
}
module-whatis "Runs a list of commands on one node or many: nothing lost, nothing recorded twice"
conflict taskfarmer
# not bin: the release's Python would hide that of the user, also from tasks
prepend-path PATH $releases/$version/commands
