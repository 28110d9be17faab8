/**
 * What is missing from a kernel, said by name. Probing takes half a second, so nobody does it who has no trouble: it explains a
 * failure after the fact.
 */
import { WeftError } from '../base/errors.ts';
import type { Kernel, KernelFeatures } from './types.ts';

/** The build option behind each feature: what an error can tell the user to look for. */
export const FEATURE_OPTIONS = {
  netns: 'CONFIG_NET_NS',
  ipv6: 'CONFIG_IPV6',
  veth: 'CONFIG_VETH',
  bridge: 'CONFIG_BRIDGE',
  vxlan: 'CONFIG_VXLAN',
  macvlan: 'CONFIG_MACVLAN',
  nf_tables: 'CONFIG_NF_TABLES',
  nft_fib: 'CONFIG_NFT_FIB_INET',
  nft_nat: 'CONFIG_NFT_NAT',
  nft_ct: 'CONFIG_NFT_CT',
  conntrack: 'CONFIG_NF_CT_NETLINK',
  policy_routing: 'CONFIG_IP_MULTIPLE_TABLES',
  multipath: 'CONFIG_IP_ROUTE_MULTIPATH',
} as const;
export type Feature = keyof typeof FEATURE_OPTIONS;

/** What no node can do without. */
export const NODE_FEATURES: readonly Feature[] = [
  'netns',
  'veth',
  'nf_tables',
  'nft_fib',
  'nft_nat',
  'nft_ct',
  'conntrack',
  'policy_routing',
];

/** @throws WEFT_KERNEL_FEATURE_MISSING naming all that are missing, each with its build option */
export function requireFeatures(features: KernelFeatures, names: readonly Feature[], cause?: unknown): void {
  const missing = names.filter((name) => !features.has[name]);
  if (missing.length === 0) return;
  const text = missing.map((name) => `${name} (${FEATURE_OPTIONS[name]})`).join(', ');
  throw new WeftError('WEFT_KERNEL_FEATURE_MISSING', `Linux ${features.release} lacks ${text}`, {
    cause,
    details: { missing, release: features.release },
  });
}

/** Why something failed: WEFT_KERNEL_FEATURE_MISSING if the kernel lacks one of these, else the error as it is. */
export async function orMissingFeature(
  kernel: Pick<Kernel, 'features'>,
  names: readonly Feature[],
  error: unknown,
): Promise<unknown> {
  try {
    requireFeatures(await kernel.features(), names, error);
    return error;
  } catch (other) {
    return other instanceof WeftError && other.code === 'WEFT_KERNEL_FEATURE_MISSING' ? other : error;
  }
}
