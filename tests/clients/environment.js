// What the clients are pointed at, and how they say that something works.
import assert from 'node:assert/strict'

/** The proxy, which is all that a client is told. */
export const PROXY = needed('AEM_PROXY_URL')
/** AEM itself, to show that nothing works without the proxy. */
export const AEM = needed('AEM_URL')

export function ok(client, what) {
  console.log(`ok ${client}: ${what}`)
}

/** A client that is not tested on this machine, which `run` prints. */
export function notTested(client, why) {
  console.log(`NOT TESTED ${client}: ${why}`)
}

function needed(name) {
  assert.ok(process.env[name], `${name} is not set: start tests/clients/run`)
  return process.env[name]
}
