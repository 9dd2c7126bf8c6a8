// aemsync pushes a folder, once to the proxy's address alone, and once as it does by default: with credentials of a local
// AEM in the URL, which are not AEM's and must give way.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { AEM, PROXY, ok } from './environment.js'

const CLIENT = 'aemsync'
const program = join(dirname(createRequire(import.meta.url).resolve('aemsync/package.json')), 'bin/aemsync')

const directory = await mkdtemp(join(tmpdir(), 'aemsync-'))
try {
  const component = join(directory, 'jcr_root/apps/wknd/components/teaser')
  await mkdir(component, { recursive: true })
  await writeFile(join(component, 'teaser.html'), '<div>${properties.text}</div>\n')
  await writeFile(join(component, '.content.xml'), '<?xml version="1.0" encoding="UTF-8"?>\n<jcr:root/>\n')

  assert.equal(await push(component, PROXY), 'OK')
  ok(CLIENT, 'a folder pushed')
  assert.equal(await push(component, PROXY.replace('//', '//admin:admin@')), 'OK')
  ok(CLIENT, 'a folder pushed with credentials of another AEM in the URL')
  assert.equal(await push(component, AEM), 'Unauthorized')
} finally {
  await rm(directory, { recursive: true })
}

/** What the program says of its only target. */
async function push(path, target) {
  const { stdout } = await promisify(execFile)(process.execPath, [program, '-p', path, '-t', target])
  const said = stdout.replaceAll(/\x1b\[\d+m/g, '').match(/ > (.*)$/m)
  assert.ok(said, stdout)
  return said[1].trim()
}
