"""`python -m gato_ray`: the command `gato`."""

from gato_ray.installation import main

main()
