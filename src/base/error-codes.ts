/**
 * The stable error codes, each with what it means and what to do. docs/errors.md is generated from this table.
 */
interface CodeEntry {
  readonly summary: string;
  readonly action: string;
}

const codes = {
  // base: values
  WEFT_BAD_ADDRESS: {
    summary: 'A text is not a valid IP address, CIDR or MAC address.',
    action: 'Correct the value named in the message.',
  },
  WEFT_BAD_CONFIG: {
    summary: 'A configuration file or option is malformed or contradicts itself.',
    action: 'Correct the field named in the message.',
  },
  WEFT_INTERNAL: {
    summary: 'A fault in Weft itself.',
    action: 'Report it with the log lines around it.',
  },
  // agent
  WEFT_NO_UNDERLAY: {
    summary: 'The interface and address that carry traffic between nodes could not be found.',
    action: 'Set nodeIPs in the agent configuration to addresses that this machine has.',
  },
  WEFT_SETUP_FAILED: {
    summary: 'The launcher could not bring something this machine lacks.',
    action: 'Read the last lines of build/setup.log.',
  },
  WEFT_CLOSED: {
    summary: 'The part that was asked is shutting down.',
    action: 'Nothing, if the process is stopping; otherwise ask again.',
  },
  // kernel
  WEFT_NOT_LINUX: {
    summary: 'Weft programs the Linux kernel and runs nowhere else.',
    action: 'Run it on Linux.',
  },
  WEFT_NOT_ROOT: {
    summary: 'The operation needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN).',
    action: 'Run it as root.',
  },
  WEFT_SYSCALL_FAILED: {
    summary: 'A system call failed; the call and its errno are in the message.',
    action: 'Read the errno; EMFILE and ENFILE mean that the limit on open files is too low.',
  },
  WEFT_KERNEL_FEATURE_MISSING: {
    summary: 'This kernel lacks a feature that the operation needs.',
    action: 'Load the module or use a kernel with the option named in the message.',
  },
  WEFT_NETLINK_REFUSED: {
    summary: 'The kernel refused a netlink request; errno and its own explanation are in the message.',
    action: 'Read the kernel message; `details` names the request and the attribute at fault.',
  },
  WEFT_NETLINK_MALFORMED: {
    summary: 'A netlink message could not be decoded.',
    action: 'Report it with the bytes in `details`.',
  },
  WEFT_NFT_REJECTED: {
    summary: 'nftables refused a ruleset or an element.',
    action: 'Read the nft message; it points at the offending expression.',
  },
  WEFT_NETNS_NOT_FOUND: {
    summary: 'A network namespace does not exist (any more).',
    action: 'Check that the container still runs.',
  },
  WEFT_NETNS_EXISTS: {
    summary: 'A network namespace with that name exists already.',
    action: 'Choose another name or remove the old one.',
  },
  WEFT_KERNEL_WORKER_DIED: {
    summary: 'The thread that talks to the kernel ended unexpectedly.',
    action: 'The agent restarts it; report the log lines before it.',
  },
  // pod addresses and the CNI plugin
  WEFT_IPAM_EXHAUSTED: {
    summary: 'The node has no pod address left to give.',
    action: 'Remove pods, wait for released addresses to cool down, or give nodes larger pod CIDRs.',
  },
  WEFT_IPAM_NOT_IN_POOL: {
    summary: 'An address was asked for that this node cannot give.',
    action: 'Ask for an address within the pod CIDR of the node, other than its first and last.',
  },
  WEFT_IPAM_IN_USE: {
    summary: 'An address was asked for that another attachment holds.',
    action: 'Ask for another address, or remove the holder named in the message.',
  },
  WEFT_ATTACH_CONFLICT: {
    summary: 'The sandbox has an interface of that name already, and it is not one of Weft.',
    action: 'Choose another interface name, or put Weft before the plugin that made it.',
  },
  WEFT_ATTACHMENT_UNKNOWN: {
    summary: 'The container has no such interface on record.',
    action: 'Run ADD first; if the container was removed, run DEL.',
  },
  WEFT_ATTACHMENT_DIFFERS: {
    summary: 'The network of a container is not as it was made.',
    action: 'Remove the container and start it again; the differences are in the message.',
  },
  WEFT_CNI_BAD_REQUEST: {
    summary: 'A runtime sent a CNI request that breaks the protocol.',
    action: 'Correct the configuration or argument named in the message.',
  },
  WEFT_CNI_NOT_READY: {
    summary: 'The agent cannot attach pods yet.',
    action: 'Wait until the node is Ready; the message says what is missing.',
  },
  WEFT_CNI_SOCKET_IN_USE: {
    summary: 'Another agent answers on the CNI socket.',
    action: 'Stop the other agent, or configure another socket.',
  },
  WEFT_CNI_INSTALL_FAILED: {
    summary: 'The CNI plugin or its configuration could not be installed.',
    action: 'Check that the folder named in the message exists and can be written.',
  },
  // store
  WEFT_STORE_LOCKED: {
    summary: 'The store file is in use by another process.',
    action: 'Stop the other API server, or give this one a data directory of its own.',
  },
  WEFT_STORE_CORRUPT: {
    summary: 'The store file is damaged or is not a Weft store.',
    action: 'Restore it from a copy, or move it away to start empty.',
  },
  WEFT_STORE_VERSION: {
    summary: 'The store file was written in a format that this version does not know.',
    action: 'Use the Weft version that wrote it, or a newer one.',
  },
  WEFT_STORE_FAILED: {
    summary: 'The medium under the store refused an operation.',
    action: 'Look at free space and permissions of the data directory.',
  },
  WEFT_STORE_CLOSED: {
    summary: 'The store was used after it had been closed.',
    action: 'The API server is shutting down; try again once it is back.',
  },
  WEFT_STORE_COMPACTED: {
    summary: 'The revision asked for is no longer remembered.',
    action: 'List again and go on from the new revision.',
  },
  WEFT_STORE_FUTURE: {
    summary: 'The revision asked for has not been reached.',
    action: 'List again: the store may have been replaced by an older copy.',
  },
  // API server
  WEFT_PKI_BROKEN: {
    summary: 'A certificate, key or kubeconfig file cannot be used.',
    action: 'Remove the file named in the message; it is made anew at the next start.',
  },
  WEFT_API_LISTEN: {
    summary: 'The API server cannot listen on an address or descriptor.',
    action: 'Free the port named in the message or choose another one.',
  },
  // lab
  WEFT_LAB_NOT_FOUND: {
    summary: 'There is no lab of that name on this machine.',
    action: 'See `weft status`, or make it with `weft up`.',
  },
  WEFT_LAB_DIFFERS: {
    summary: 'A lab of that name exists with other options.',
    action: 'Remove it with `weft down` first, or give another name with --lab.',
  },
  WEFT_LAB_NAMESPACE_FAILED: {
    summary: 'A mount, UTS or IPC namespace of a lab could not be made.',
    action: 'Read the message of mount or unshare; `weft down` removes what is half-made.',
  },
  WEFT_LAB_DAEMON_FAILED: {
    summary: 'The daemon of a lab did not start, ended, or does not answer.',
    action: 'Read its log, named in the message; `weft up` starts it again and adopts what runs.',
  },
  WEFT_LAB_NOT_READY: {
    summary: 'A lab did not become ready in time.',
    action: 'Look at the parts and logs named in the message.',
  },
  WEFT_POD_NOT_RUNNING: {
    summary: 'A pod or container does not run, so nothing can be run in it.',
    action: 'See `kubectl describe pod`.',
  },
  WEFT_IMAGE_UNKNOWN: {
    summary: 'A lab has no image store; only the built-in images can be named.',
    action: 'Use agnhost, pause, or exec with a command of this machine.',
  },
  // API clients and controllers
  WEFT_KUBECONFIG_INVALID: {
    summary: 'A kubeconfig cannot be read, contradicts itself, or asks for what Weft does not support.',
    action:
      'Correct the field named in the message; `kubectl config view` shows the file as kubectl reads it.',
  },
  WEFT_API_UNREACHABLE: {
    summary: 'The API server gave no answer: no connection, TLS refused, cut off, or too slow.',
    action: 'Check that it runs and that address, port and certificates in the kubeconfig are right.',
  },
  WEFT_API_MALFORMED: {
    summary: 'The API server answered with something that is no Kubernetes object, or is too large.',
    action:
      'Check that the address in the kubeconfig is a Kubernetes API server and no proxy answers for it.',
  },
  WEFT_NODE_CIDR_EXHAUSTED: {
    summary: 'A cluster CIDR has no block left for another node.',
    action: 'Remove nodes that no longer exist, or add a larger cluster CIDR or a longer node mask.',
  },
  WEFT_LAB_REMAINS: {
    summary: 'Something of a lab is still there after removing it.',
    action: 'Run `weft down` again; `details` names what remains.',
  },
} satisfies Record<string, CodeEntry>;

export type ErrorCode = keyof typeof codes;
export const ERROR_CODES: Readonly<Record<ErrorCode, CodeEntry>> = codes;
