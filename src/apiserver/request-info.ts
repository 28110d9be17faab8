/** What a request asks, read from its method and path alone. */
import { apiVersionOf, type KindDeclaration } from '../api/kind-declaration.ts';
import { badRequest, methodNotAllowed, noSuchPath } from '../api/statuses.ts';

export type Verb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete' | 'deletecollection';

export interface ResourceRequest {
  verb: Verb;
  kind: KindDeclaration;
  namespace?: string;
  name?: string;
  subresource?: string;
}

export interface RequestInfo {
  path: string;
  query: URLSearchParams;
  /** Absent: not under a kind. */
  resource?: ResourceRequest;
}

const MAX_URL = 64 * 1024;

export function parseTarget(url: string): { path: string; query: URLSearchParams; segments: string[] } {
  if (url.length > MAX_URL || !url.startsWith('/')) throw badRequest('malformed request target');
  const mark = url.indexOf('?');
  const path = mark < 0 ? url : url.slice(0, mark);
  let segments: string[];
  try {
    segments = path.split('/').filter(Boolean).map(decodeURIComponent);
  } catch {
    throw badRequest('malformed percent-encoding in the path');
  }
  // Keys of the store are built from these: none may reach another place in it.
  if (segments.some((s) => s === '.' || s === '..' || s.includes('/') || s.includes('\0')))
    throw noSuchPath();
  return { path, query: new URLSearchParams(mark < 0 ? '' : url.slice(mark + 1)), segments };
}

/** Finds kinds by their place in the URL. */
export class KindIndex {
  readonly kinds: readonly KindDeclaration[];
  readonly #byPath = new Map<string, KindDeclaration>();
  readonly #groupVersions = new Set<string>();

  constructor(kinds: readonly KindDeclaration[]) {
    this.kinds = kinds;
    for (const kind of kinds) {
      this.#groupVersions.add(apiVersionOf(kind));
      this.#byPath.set(`${apiVersionOf(kind)}/${kind.plural}`, kind);
    }
  }

  /** undefined: the path is not below a group and version with at least one segment more. */
  parse(method: string, segments: string[], query: URLSearchParams): ResourceRequest | undefined {
    let groupVersion: string;
    let rest: string[];
    if (segments[0] === 'api' && segments.length > 2) {
      groupVersion = segments[1] as string;
      rest = segments.slice(2);
    } else if (segments[0] === 'apis' && segments.length > 3) {
      groupVersion = `${segments[1]}/${segments[2]}`;
      rest = segments.slice(3);
    } else return undefined;
    if (!this.#groupVersions.has(groupVersion)) throw noSuchPath();
    let namespace: string | undefined;
    // /namespaces/NS/pods is in a namespace; /namespaces/NAME/status is of the namespace itself.
    if (
      rest[0] === 'namespaces' &&
      rest.length > 2 &&
      this.#byPath.get(`${groupVersion}/${rest[2]}`)?.namespaced
    ) {
      namespace = rest[1] as string;
      rest = rest.slice(2);
    }
    const kind = this.#byPath.get(`${groupVersion}/${rest[0]}`);
    if (!kind || rest.length > 3) throw noSuchPath();
    const [, name, subresource] = rest;
    if (kind.namespaced && name !== undefined && namespace === undefined) throw noSuchPath();
    if (subresource !== undefined && !subresourcesOf(kind).includes(subresource)) throw noSuchPath();
    return {
      verb: verbOf(method, name, query, kind, namespace, subresource),
      kind,
      ...(namespace !== undefined && { namespace }),
      ...(name !== undefined && { name }),
      ...(subresource !== undefined && { subresource }),
    };
  }
}

export const subresourcesOf = (kind: KindDeclaration): string[] => [
  ...(kind.statusSubresource ? ['status'] : []),
  ...(kind.kind === 'Pod' ? ['binding'] : []),
];

function verbOf(
  method: string,
  name: string | undefined,
  query: URLSearchParams,
  kind: KindDeclaration,
  namespace: string | undefined,
  subresource: string | undefined,
): Verb {
  const watching = query.get('watch') === 'true' || query.get('watch') === '1';
  if (subresource === 'binding') {
    if (method === 'POST') return 'create';
    throw methodNotAllowed();
  }
  if (method === 'GET' || method === 'HEAD') return name !== undefined ? 'get' : watching ? 'watch' : 'list';
  if (name === undefined) {
    if (method === 'POST' && (!kind.namespaced || namespace !== undefined)) return 'create';
    if (method === 'DELETE' && (!kind.namespaced || namespace !== undefined)) return 'deletecollection';
    throw methodNotAllowed();
  }
  if (method === 'PUT') return 'update';
  if (method === 'PATCH') return 'patch';
  if (method === 'DELETE' && subresource === undefined) return 'delete';
  throw methodNotAllowed();
}
