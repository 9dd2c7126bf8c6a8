// @adobe/aem-headless-client-js with Node's own fetch, as in a browser or on a server.
import AEMHeadless from '@adobe/aem-headless-client-js'
import { check } from './graphql.js'

await check('@adobe/aem-headless-client-js', serviceURL => new AEMHeadless({ serviceURL, fetch }))
