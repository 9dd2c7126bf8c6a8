// What users search for, as the value of a persisted query, under the policy `graphql-persisted`. Each client
// encodes the terms as its language does, and AEM answers with the path that it has received.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import AEMHeadless from '@adobe/aem-headless-client-js'
import axios from 'axios'
import { PROXY, notTested, ok } from './environment.js'

const QUERY = 'wknd/adventures'
const TERMS = JSON.parse(readFileSync(new URL('../policies/search-terms.json', import.meta.url)))
const CHILD_MILLISECONDS = 120_000

assert.equal(TERMS.length, 36)
// The proxy has the policy that this is about.
assert.equal((await fetch(`${PROXY}/content/dam.json`)).status, 403)

await headless()
await overAxios()
inAnotherLanguage('python-requests', 'python3', ['-c', 'import requests'], 'search-terms.py')
inAnotherLanguage('Java HttpClient', 'javac', ['-version'], 'SearchTerms.java', 'java')

async function headless() {
  const client = new AEMHeadless({ serviceURL: PROXY, fetch })
  const received = []
  for (const title of TERMS) {
    received.push((await client.runPersistedQuery(QUERY, { title })).data)
    const posted = (await client.runPersistedQuery(QUERY, { title }, { method: 'POST' })).data
    assert.deepEqual(posted.variables, { title })
  }
  check('@adobe/aem-headless-client-js', received, title => `;title=${title};`)
}

async function overAxios() {
  const received = []
  for (const term of TERMS) {
    const url = `${PROXY}/graphql/execute.json/${QUERY};title=${encodeURIComponent(term)}`
    received.push((await axios.get(url, { proxy: false })).data.data)
    assert.deepEqual((await axios.post(url, {}, { proxy: false })).data.data.persistedQuery, received.at(-1).persistedQuery)
  }
  check('axios', received)
}

/** Runs a program that gets the terms with a NUL behind each, and writes an answer of AEM on each line. */
function inAnotherLanguage(name, needed, probe, file, program = needed) {
  if (spawnSync(needed, probe).status !== 0) return notTested(name, `${needed} ${probe.join(' ')} fails`)
  const path = new URL(file, import.meta.url).pathname
  const { status, stdout, stderr } = spawnSync(program, [path, `${PROXY}/graphql/execute.json/${QUERY};title=`], {
    input: TERMS.map(term => `${term}\0`).join(''),
    encoding: 'utf8',
    timeout: CHILD_MILLISECONDS,
  })
  assert.equal(status, 0, stderr)
  check(name, stdout.trim().split('\n').map(line => JSON.parse(line).data))
}

function check(name, received, values = title => `;title=${title}`) {
  const paths = received.map(({ persistedQuery }) => decodeURIComponent(persistedQuery))
  assert.deepEqual(paths, TERMS.map(term => QUERY + values(term)))
  ok(name, `${TERMS.length} search terms reach AEM as they are`)
}
