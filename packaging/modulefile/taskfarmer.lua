-- For Lmod. Put it where modules are looked for, as taskfarmer/VERSION.lua: it has the version from its name.
-- Change the place of the releases (docs/install.md):
local releases = "/sw/taskfarmer"

help("Runs the commands of a task list on one node or many: pytaskfarmer.py --help")
whatis("Runs a list of commands on one node or many: nothing lost, nothing recorded twice")
conflict("taskfarmer")
-- not bin: the Python of the release would hide the user's own, from tasks too
prepend_path("PATH", pathJoin(releases, myModuleVersion(), "commands"))
