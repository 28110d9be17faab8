/** What the server serves, as discovery documents: one by one, and aggregated (apidiscovery.k8s.io/v2). */
import { apiVersionOf, type KindDeclaration } from '../api/kind-declaration.ts';
import { parseAccept } from './representation.ts';
import { subresourcesOf } from './request-info.ts';

const VERBS = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];
const SUBRESOURCE_VERBS: Record<string, string[]> = {
  status: ['get', 'patch', 'update'],
  binding: ['create'],
};

/** major.minor are the Kubernetes API level that clients compare themselves with. */
export const VERSION_INFO = {
  major: '1',
  minor: '32',
  gitVersion: 'v1.32.0+weft',
  gitCommit: '',
  gitTreeState: '',
  buildDate: '1970-01-01T00:00:00Z',
  goVersion: '',
  compiler: 'node',
  platform: `${process.platform}/${process.arch === 'x64' ? 'amd64' : process.arch}`,
};

/**
 * kubectl asks for CRDs before it says of a manifest that its kind is unknown, and ends with "failed to check CRD" when
 * the question itself is. There are none, which is the answer; discovery does not offer the kind.
 */
export const isCrdList = (segments: string[]): boolean =>
  segments.join() === 'apis,apiextensions.k8s.io,v1,customresourcedefinitions';
const NO_CRDS = {
  kind: 'CustomResourceDefinitionList',
  apiVersion: 'apiextensions.k8s.io/v1',
  metadata: {},
  items: [],
};

export class Discovery {
  readonly #groups = new Map<string, Map<string, KindDeclaration[]>>();

  constructor(kinds: readonly KindDeclaration[]) {
    for (const kind of kinds) {
      const versions = this.#groups.get(kind.group) ?? new Map<string, KindDeclaration[]>();
      this.#groups.set(kind.group, versions);
      versions.set(kind.version, [...(versions.get(kind.version) ?? []), kind]);
    }
  }

  /** The document at a path, with its media type; undefined when there is none. `serverAddress`: host:port. */
  document(
    segments: string[],
    accept: string | undefined,
    serverAddress: string,
  ): { body: object; contentType: string } | undefined {
    const plain = (body: object | undefined) => body && { body, contentType: 'application/json' };
    const [root, group, version] = segments;
    if (isCrdList(segments)) return plain(NO_CRDS);
    if (root === 'api' && segments.length === 1)
      return (
        this.#aggregated(accept, (g) => g === '') ??
        plain({
          kind: 'APIVersions',
          versions: [...(this.#groups.get('')?.keys() ?? [])],
          serverAddressByClientCIDRs: [{ clientCIDR: '0.0.0.0/0', serverAddress }],
        })
      );
    if (root === 'api' && segments.length === 2) return plain(this.#resources('', group as string));
    if (root !== 'apis') return undefined;
    if (segments.length === 1)
      return (
        this.#aggregated(accept, (g) => g !== '') ??
        plain({
          kind: 'APIGroupList',
          apiVersion: 'v1',
          groups: [...this.#groups.keys()].filter(Boolean).map((name) => this.#group(name)),
        })
      );
    if (segments.length === 2 && group && this.#groups.has(group))
      return plain({ kind: 'APIGroup', apiVersion: 'v1', ...this.#group(group) });
    return segments.length === 3 && group ? plain(this.#resources(group, version as string)) : undefined;
  }

  #group(name: string): object {
    const versions = [...(this.#groups.get(name)?.keys() ?? [])].map((version) => ({
      groupVersion: `${name}/${version}`,
      version,
    }));
    return { name, versions, preferredVersion: versions[0] };
  }

  #resources(group: string, version: string): object | undefined {
    const kinds = this.#groups.get(group)?.get(version);
    if (!kinds) return undefined;
    return {
      kind: 'APIResourceList',
      apiVersion: 'v1',
      groupVersion: group ? `${group}/${version}` : version,
      resources: kinds.flatMap((kind) => [
        {
          name: kind.plural,
          singularName: kind.singular,
          namespaced: kind.namespaced,
          kind: kind.kind,
          verbs: VERBS,
          ...(kind.shortNames.length > 0 && { shortNames: kind.shortNames }),
          ...(kind.categories.length > 0 && { categories: kind.categories }),
        },
        ...subresourcesOf(kind).map((sub) => ({
          name: `${kind.plural}/${sub}`,
          singularName: '',
          namespaced: kind.namespaced,
          kind: sub === 'binding' ? 'Binding' : kind.kind,
          verbs: SUBRESOURCE_VERBS[sub],
        })),
      ]),
    };
  }

  #aggregated(
    accept: string | undefined,
    wanted: (group: string) => boolean,
  ): { body: object; contentType: string } | undefined {
    for (const { type, parameters } of parseAccept(accept)) {
      if (type !== 'application/json') continue;
      if (!parameters.has('as')) return undefined;
      const version = parameters.get('v');
      if (parameters.get('g') !== 'apidiscovery.k8s.io' || parameters.get('as') !== 'APIGroupDiscoveryList')
        continue;
      if (version !== 'v2' && version !== 'v2beta1') continue;
      return {
        contentType: `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`,
        body: {
          kind: 'APIGroupDiscoveryList',
          apiVersion: `apidiscovery.k8s.io/${version}`,
          metadata: {},
          items: [...this.#groups]
            .filter(([name]) => wanted(name))
            .map(([name, versions]) => ({
              metadata: { name: name || undefined, creationTimestamp: null },
              versions: [...versions].map(([v, kinds]) => ({
                version: v,
                freshness: 'Current',
                resources: kinds.map(aggregatedResource),
              })),
            })),
        },
      };
    }
    return undefined;
  }
}

function aggregatedResource(kind: KindDeclaration): object {
  const responseKind = { group: kind.group, version: kind.version, kind: kind.kind };
  return {
    resource: kind.plural,
    responseKind,
    scope: kind.namespaced ? 'Namespaced' : 'Cluster',
    singularResource: kind.singular,
    verbs: VERBS,
    ...(kind.shortNames.length > 0 && { shortNames: kind.shortNames }),
    ...(kind.categories.length > 0 && { categories: kind.categories }),
    subresources: subresourcesOf(kind).map((sub) => ({
      subresource: sub,
      responseKind: sub === 'binding' ? { group: '', version: 'v1', kind: 'Binding' } : responseKind,
      verbs: SUBRESOURCE_VERBS[sub],
    })),
  };
}

export const groupVersionPath = (kind: KindDeclaration): string =>
  kind.group ? `apis/${apiVersionOf(kind)}` : `api/${kind.version}`;
