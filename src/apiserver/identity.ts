/**
 * Who asks, and what they may do. First form: client certificates, two groups; RBAC takes the place of `authorize`.
 *
 * | who | what |
 * |---|---|
 * | group `system:masters` | everything |
 * | group `system:nodes`, user `system:node:NAME` | read everything; create, change and delete Node NAME and its status, and its Lease in kube-node-lease; Events; status and deletion (the confirmation that one has ended) of Pods that are bound to NAME |
 * | any other certificate of the CA | discovery, OpenAPI, version, health |
 * | nobody (no certificate) | version, health |
 */
import type { TLSSocket } from 'node:tls';
import type { KindDeclaration } from '../api/kind-declaration.ts';
import { forbiddenRequest } from '../api/statuses.ts';

export interface Identity {
  user: string;
  groups: readonly string[];
}

export const ANONYMOUS: Identity = { user: 'system:anonymous', groups: ['system:unauthenticated'] };

const OPEN_PATHS = new Set(['/healthz', '/livez', '/readyz', '/version']);
const identities = new WeakMap<TLSSocket, Identity | null>();

/** undefined: a certificate was shown that is not of our CA, or has expired. Anonymous when there is none. */
export function identify(socket: TLSSocket): Identity | undefined {
  const known = identities.get(socket);
  if (known !== undefined) return known ?? undefined;
  const identity = readIdentity(socket);
  identities.set(socket, identity ?? null);
  return identity;
}

function readIdentity(socket: TLSSocket): Identity | undefined {
  const certificate = socket.getPeerCertificate();
  if (!certificate || Object.keys(certificate).length === 0) return ANONYMOUS;
  if (!socket.authorized) return undefined;
  const user = only(certificate.subject?.CN);
  if (!user) return undefined;
  const groups = certificate.subject?.O ?? [];
  return { user, groups: [...(Array.isArray(groups) ? groups : [groups]), 'system:authenticated'] };
}

const only = (value: string | string[] | undefined): string | undefined =>
  Array.isArray(value) ? value[0] : value;

export interface Attributes {
  verb: string;
  path: string;
  /** Absent: the path is none of a kind's. */
  kind?: KindDeclaration;
  subresource?: string;
  namespace?: string;
  name?: string;
  /** spec.nodeName of a Pod, '' of one that is bound to none; absent: not read yet, and asked again when it is. */
  boundTo?: string;
}

/** Throws the 403 that kube-apiserver would. */
export function authorize(identity: Identity, a: Attributes): void {
  if (mayDo(identity, a)) return;
  if (!a.kind) throw forbiddenRequest(`forbidden: User "${identity.user}" cannot ${a.verb} path "${a.path}"`);
  const resource = a.subresource ? `${a.kind.plural}/${a.subresource}` : a.kind.plural;
  const scope = a.namespace ? `in the namespace "${a.namespace}"` : 'at the cluster scope';
  const subject = a.name ? `${a.kind.plural} "${a.name}"` : a.kind.plural;
  throw forbiddenRequest(
    `${subject} is forbidden: User "${identity.user}" cannot ${a.verb} resource "${resource}" in API group "${a.kind.group}" ${scope}`,
    a.kind,
    a.name,
  );
}

function mayDo(identity: Identity, a: Attributes): boolean {
  if (identity.groups.includes('system:masters')) return true;
  if (!a.kind) {
    if (OPEN_PATHS.has(a.path) || /^\/(livez|readyz|healthz)\//.test(a.path)) return true;
    return identity !== ANONYMOUS && a.verb === 'get' && (a.path !== '/metrics' || isNode(identity));
  }
  return isNode(identity) && nodeMayDo(identity, a, a.kind);
}

const isNode = (identity: Identity): boolean => identity.groups.includes('system:nodes');

function nodeMayDo(identity: Identity, a: Attributes, kind: KindDeclaration): boolean {
  if (a.verb === 'get' || a.verb === 'list' || a.verb === 'watch') return true;
  if (a.verb === 'deletecollection') return false;
  switch (kind.plural) {
    case 'nodes':
      return isOwn(identity, a);
    case 'leases':
      // Whoever renews another node's Lease keeps it Ready when it is dead.
      return a.namespace === 'kube-node-lease' && isOwn(identity, a);
    case 'events':
      return true;
    case 'pods':
      return (
        (a.subresource === 'status' || (a.verb === 'delete' && !a.subresource)) &&
        (a.boundTo === undefined || identity.user === `system:node:${a.boundTo}`)
      );
    default:
      return false;
  }
}

/** The name in a POST is in its body: the create handler asks again with it. */
function isOwn(identity: Identity, { name, verb }: Attributes): boolean {
  return name === undefined ? verb === 'create' : identity.user === `system:node:${name}`;
}
