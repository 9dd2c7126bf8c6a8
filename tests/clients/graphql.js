// What both headless clients can do, against five adventures.
import assert from 'node:assert/strict'
import { AEM, ok } from './environment.js'

export async function check(name, connect) {
  const client = connect(process.env.AEM_PROXY_URL)

  const { data } = await client.runQuery('{ adventureList { items { _path title } } }')
  assert.equal(data.adventureList.items.length, 5)
  ok(name, 'runQuery')

  // The path that AEM sees is the one that the client wrote: `%3B`, and a bare `;` at its end.
  const variables = { limit: 2, activity: 'Ski & surf' }
  const persisted = (await client.runPersistedQuery('wknd/adventures', variables)).data
  assert.equal(persisted.persistedQuery, 'wknd/adventures%3Blimit%3D2%3Bactivity%3DSki%20%26%20surf;')
  assert.deepEqual(persisted.variables, variables)
  assert.equal(persisted.adventureList.items.length, 2)
  ok(name, 'runPersistedQuery with variables')

  const posted = (await client.runPersistedQuery('wknd/adventures', variables, { method: 'POST' })).data
  assert.deepEqual(posted.variables, variables)
  ok(name, 'runPersistedQuery by POST')

  const sizes = []
  const titles = new Set()
  for await (const page of client.runPaginatedQuery('adventure', '{ _path title }', { pageSize: 2 })) {
    sizes.push(page.length)
    page.forEach(adventure => titles.add(adventure.title))
  }
  assert.deepEqual([sizes, titles.size], [[2, 2, 1], 5])
  ok(name, 'runPaginatedQuery over three pages')

  const [listed] = await client.listPersistedQueries()
  assert.equal(listed.path.shortForm, 'wknd/adventures')
  ok(name, 'listPersistedQueries')

  await assert.rejects(connect(AEM).runQuery('{ adventureList { items { title } } }'), 'AEM answers without a token')
}
