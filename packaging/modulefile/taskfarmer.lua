-- For Lmod. Copy it to your module path as taskfarmer/VERSION.lua: it takes the version from its own name.
-- Change the directory of the releases (docs/install.md):
local releases = "/sw/taskfarmer"

help("Runs the commands of a task list on one node or many: pytaskfarmer.py --help")
whatis("Runs a list of commands on one node or many: nothing lost, nothing recorded twice")
conflict("taskfarmer")
-- not bin: the release's Python would hide that of the user, also from tasks
prepend_path("PATH", pathJoin(releases, myModuleVersion(), "commands"))
