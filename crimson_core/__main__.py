from crimson_core.cli import main

main()
