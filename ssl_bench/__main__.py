"""`python -m ssl_bench` is `bench`, for launchers such as torchrun that start modules."""

from ssl_bench.cli.main import main

main()
