"""`python -m inpaint_batch`: the same program, where its script is not on the PATH of a job."""

from inpaint_batch.cli.main import main

if __name__ == "__main__":
    main()
