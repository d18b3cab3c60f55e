from quantbuild.shell import tasks
globals().update(tasks())
