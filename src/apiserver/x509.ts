/**
 * The X.509 library, loaded only when something is to be issued: it costs 110 ms and 40 MB, and most starts issue
 * nothing.
 */
import type * as X509 from '@peculiar/x509';

let loaded: Promise<typeof X509> | undefined;

export function loadX509(): Promise<typeof X509> {
  loaded ??= (async () => {
    // Its dependency tsyringe refuses to load without the reflect-metadata API, though nothing here uses metadata.
    const none = (): undefined => undefined;
    if (!('getMetadata' in Reflect))
      Object.assign(Reflect, { getMetadata: none, getOwnMetadata: none, defineMetadata: none });
    return import('@peculiar/x509');
  })();
  return loaded;
}
