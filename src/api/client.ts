/**
 * How Weft's parts speak to a Kubernetes API: the interface. `src/informers` implements it over HTTPS; tests use
 * in-memory ones. Types of objects come from the {@link Resource} handle, so a call site needs no cast.
 */
import type {
  ConfigMap,
  Event,
  KubeList,
  KubeObject,
  Lease,
  Namespace,
  Node,
  Pod,
  WatchEvent,
} from './types.ts';

/** A kind's place in the API; the type parameter ties it to its objects. */
export interface Resource<T extends KubeObject> {
  /** '' for core. */
  group: string;
  version: string;
  /** Lower-case plural, as in URLs. */
  plural: string;
  kind: string;
  namespaced: boolean;
  /** Never set: carries the object type. */
  readonly _type?: T;
}

const core = <T extends KubeObject>(plural: string, kind: string, namespaced: boolean): Resource<T> => ({
  group: '',
  version: 'v1',
  plural,
  kind,
  namespaced,
});

export const NAMESPACES = core<Namespace>('namespaces', 'Namespace', false);
export const NODES = core<Node>('nodes', 'Node', false);
export const PODS = core<Pod>('pods', 'Pod', true);
export const CONFIGMAPS = core<ConfigMap>('configmaps', 'ConfigMap', true);
export const EVENTS = core<Event>('events', 'Event', true);
export const LEASES: Resource<Lease> = {
  group: 'coordination.k8s.io',
  version: 'v1',
  plural: 'leases',
  kind: 'Lease',
  namespaced: true,
};

export interface ListOptions {
  /** Absent: all namespaces. */
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
  resourceVersion?: string;
  limit?: number;
  continue?: string;
  signal?: AbortSignal;
}

export interface WatchOptions extends ListOptions {
  allowWatchBookmarks?: boolean;
  /** Server-side limit of the watch. */
  timeoutSeconds?: number;
  /** Called once the server has accepted the watch, before its first event. */
  onOpen?: () => void;
}

export interface ObjectRef {
  name: string;
  /** Required for namespaced kinds. */
  namespace?: string;
}

export type PatchType = 'merge' | 'strategic' | 'json';

/**
 * A refusal is an ApiError (see `src/api/errors.ts`): the server's Status with its HTTP code. Everything that failed
 * before an answer came is a WeftError `WEFT_API_UNREACHABLE`.
 */
export interface ApiClient {
  list<T extends KubeObject>(resource: Resource<T>, options?: ListOptions): Promise<KubeList<T>>;
  get<T extends KubeObject>(resource: Resource<T>, ref: ObjectRef): Promise<T>;
  create<T extends KubeObject>(resource: Resource<T>, object: T): Promise<T>;
  /** PUT; `metadata.resourceVersion` makes it conditional. */
  update<T extends KubeObject>(resource: Resource<T>, object: T, subresource?: 'status'): Promise<T>;
  patch<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: unknown,
    options?: { type?: PatchType; subresource?: 'status' | 'binding' },
  ): Promise<T>;
  delete<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    options?: { gracePeriodSeconds?: number; uid?: string; resourceVersion?: string },
  ): Promise<void>;
  /** Events until the server ends the watch or the signal aborts; ERROR events are yielded, not thrown. */
  watch<T extends KubeObject>(resource: Resource<T>, options?: WatchOptions): AsyncIterable<WatchEvent<T>>;
}
