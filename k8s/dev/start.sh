# The start of the dev images: runs bobrai from a copy of the source that may be changed, and anew whenever it does.
set -e
if [ ! -d /tmp/app ]; then
  # whole or not at all; a container that starts again keeps what was synced into it
  cp -r /source /tmp/app.new && mv /tmp/app.new /tmp/app
fi
case $1 in
  api | dispatcher | worker | external-metrics) exec watchfiles --sigint-timeout 15 "bobrai $*" /tmp/app ;;
  *) exec bobrai "$@" ;;
esac
