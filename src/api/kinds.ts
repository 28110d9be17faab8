/** The kinds that Weft's API serves. A new one is a declaration in kinds/ and a line here. */
import type { KindDeclaration } from './kind-declaration.ts';
import { configMapKind } from './kinds/config-map.ts';
import { eventKind } from './kinds/event.ts';
import { leaseKind } from './kinds/lease.ts';
import { namespaceKind } from './kinds/namespace.ts';
import { nodeKind } from './kinds/node.ts';
import { podKind } from './kinds/pod.ts';

export const KINDS: readonly KindDeclaration[] = [
  namespaceKind,
  nodeKind,
  podKind,
  configMapKind,
  eventKind,
  leaseKind,
] as unknown as KindDeclaration[];
