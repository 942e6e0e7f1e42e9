#!/bin/bash
# The demonstration: what cgmgr says about the machine that it runs on.
set -eu
cgmgr --version
cgmgr doctor
