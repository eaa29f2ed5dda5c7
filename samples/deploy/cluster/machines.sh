#!/bin/sh
# A cluster of plain machines: run the part of each machine there, then the run on the first.
#
#   sh machines.sh scheduler                       on the first machine: listens at port 8786
#   sh machines.sh worker tls://10.0.0.5:8786      on each machine that sends
#   sh machines.sh run tls://10.0.0.5:8786 fleet.csv --yes
#
# Each machine has bulkbind with its extra `cluster`, of one version, and in TLS (default: ./tls)
# ca.pem, cert.pem and key.pem of an authority of your own. One machine alone may leave out TLS:
# TLS= sh machines.sh scheduler, and tcp://127.0.0.1:8786.
set -eu
part=${1:?scheduler, worker or run}
shift
tls=${TLS-./tls}
protocol=tcp listen=127.0.0.1
if [ -n "$tls" ]; then
  protocol=tls listen=${LISTEN:-0.0.0.0}
  export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true
  export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$tls/ca.pem"
  for role in SCHEDULER WORKER CLIENT; do
    export "DASK_DISTRIBUTED__COMM__TLS__${role}__CERT=$tls/cert.pem"
    export "DASK_DISTRIBUTED__COMM__TLS__${role}__KEY=$tls/key.pem"
  done
fi
# Nothing is a task, so there is nothing to measure: a worker costs a sixth while it has nothing to do.
export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=false DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL=10s
export DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL=1s DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL=5s
case $part in
  scheduler)
    exec dask scheduler --protocol "$protocol" --host "$listen" --port "${PORT:-8786}" --no-dashboard
    ;;
  worker)
    address=${1:?the address of the scheduler}
    exec dask worker "$address" --protocol "$protocol" ${HOST:+--host "$HOST"} --nthreads 1 \
      --no-nanny --no-dashboard --local-directory "${TMPDIR:-/tmp}"
    ;;
  run)
    address=${1:?the address of the scheduler}
    shift
    exec bulkbind run "$@" --cluster "$address"
    ;;
  *)
    echo "scheduler, worker or run, and not $part" >&2
    exit 2
    ;;
esac
