// @adobe/aem-upload: makes the folders, begins the upload, brings the parts to the blob storage, completes the upload
// where AEM says, which is an absolute URL of AEM's own.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { open, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import aemUpload from '@adobe/aem-upload'
import { AEM, PROXY, ok } from './environment.js'

const CLIENT = '@adobe/aem-upload'
const MEBIBYTE = 1024 * 1024
const SIZE = 200 * MEBIBYTE
const FOLDER = '/content/dam/wknd/clients'
const NAME = 'film.mp4'

const directory = await mkdtemp(join(tmpdir(), 'aem-upload-'))
try {
  const path = join(directory, NAME)
  await generate(path)
  await upload(path)
  await verify(path)
} finally {
  await rm(directory, { recursive: true })
}

/** Bytes of which no two parts are alike. */
async function generate(path) {
  const file = await open(path, 'w')
  for (let written = 0; written < SIZE; written += MEBIBYTE) await file.write(randomBytes(MEBIBYTE))
  await file.close()
}

async function upload(path) {
  const options = new aemUpload.FileSystemUploadOptions()
    .withUrl(`${PROXY}${FOLDER}`)
    .withConcurrent(true)
    .withHttpRetryCount(1)
  const result = await new aemUpload.FileSystemUpload().upload(options, [path])
  const failures = [...result.errors, ...result.detailedResult.flatMap(file => file.result?.errors ?? [])]
  assert.deepEqual(failures.map(failure => failure.innerStack ?? failure.message), [])
  assert.deepEqual([result.totalFiles, result.totalCompleted], [1, 1])
  // One is there already, which AEM says with a 409, and the client takes as an answer.
  assert.deepEqual(result.createdFolders.map(folder => folder.folderPath), ['/content/dam/wknd', FOLDER])
  assert.deepEqual(result.createdFolders.map(folder => folder.error?.code), ['EALREADYEXISTS', undefined])
  ok(CLIENT, 'a folder made, and a file of 200 MiB uploaded in parts')
}

async function verify(path) {
  const response = await fetch(`${PROXY}${FOLDER}/${NAME}.sha256.json`)
  assert.equal(response.status, 200)
  const { length, parts, storage } = await response.json()
  assert.ok(parts.length >= 10, `${parts.length} parts`)
  assert.deepEqual(parts, await digests(path, parts))
  assert.equal(length, SIZE)
  ok(CLIENT, `AEM has what was sent, in ${parts.length} parts`)

  assert.deepEqual(storage, { refused: 0, authorizationSeen: 0 })
  ok(CLIENT, 'the blob storage saw no credentials')

  // The client has none, so its completion has come through the proxy.
  const straight = await fetch(`${AEM}${FOLDER}.completeUpload.json`, { method: 'POST' })
  assert.equal(straight.status, 401)
  ok(CLIENT, 'AEM completes nothing without a token: completeURI led to the proxy')
}

/** The same for the file, cut where the parts were. */
async function digests(path, parts) {
  const file = await open(path)
  const own = []
  let position = 0
  for (const { length } of parts) {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position)
    own.push({ length: bytesRead, sha256: createHash('sha256').update(buffer).digest('hex') })
    position += bytesRead
  }
  await file.close()
  assert.equal(position, SIZE)
  return own
}
