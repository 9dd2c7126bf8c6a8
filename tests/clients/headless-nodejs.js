// @adobe/aem-headless-client-nodejs, which brings its own fetch and asks again by itself.
import AEMHeadless from '@adobe/aem-headless-client-nodejs'
import { check } from './graphql.js'

await check('@adobe/aem-headless-client-nodejs', serviceURL => new AEMHeadless({ serviceURL }))
