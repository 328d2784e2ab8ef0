"""`python report.py daily`: a command is the app's own code, with its settings and its network."""

import os
import sys

if __name__ == "__main__":
    print(f"{sys.argv[1]} report for {os.environ['REPORT_TO']}: all is well")
