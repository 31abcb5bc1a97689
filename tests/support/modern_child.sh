# A stdio server of 2026-07-28 alone. What a process is asked first decides whether it is of any use. $1: where it writes
# what it was asked; $2: "old" for a server that knows sessions alone, "mute" for one that says nothing to what it does not
# know, "quiet" for one that tells no changes. The tool "change" changes its tools.
locked=
log=$1
only=$2
changes='"tools":{"listChanged":true},"resources":{"subscribe":true}'
if [ "$only" = quiet ]; then
  only=
  changes='"tools":{}'
fi
echo "$$ start {}" >>"$log"
say() { printf '%s\n' "$1"; }
result() { say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"resultType\":\"complete\",$1}}"; }
error() { say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":$1,\"message\":\"no\"}}"; }
while read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/^.*"id":\([0-9][0-9]*\),"\(method\|jsonrpc\)".*$/\1/p')
  method=$(printf '%s' "$line" | sed -n 's/^.*"method":"\([^"]*\)".*$/\1/p')
  echo "$$ $method $line" >>"$log"
  if [ -n "$locked" ] && [ -n "$id" ]; then
    error -32022
    continue
  fi
  case $only:$method in
  mute:server/discover) ;;
  old:initialize | mute:initialize)
    say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"old\",\"version\":\"1\"}}}"
    ;;
  old:server/discover | :initialize)
    locked=1
    error -32601
    ;;
  :server/discover)
    result '"supportedVersions":["2026-07-28"],"capabilities":{'"$changes"',"logging":{}},"ttlMs":0,"cacheScope":"public"'
    ;;
  :subscriptions/listen)
    # One for all of its conversation: the newest, and none when any is ended.
    listening=$id
    say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{\"notifications\":{\"toolsListChanged\":true,\"resourceSubscriptions\":[\"memo:x\"]},\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":$id}}}"
    ;;
  *:tools/list)
    result '"tools":[{"name":"work","inputSchema":{"properties":{"a":{"type":"integer","x-mcp-header":"A"}}}}],"ttlMs":0,"cacheScope":"public"'
    ;;
  *:tools/call)
    case $line in
    *'"name":"wait"'*) ;;
    *'"name":"change"'*)
      [ -n "$listening" ] && say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":$listening}}}"
      result '"content":[{"type":"text","text":"changed"}]'
      ;;
    *'"inputResponses":{"who":{"action":"accept"}}'*'"requestState":"s"'* | *'"requestState":"s"'*'"inputResponses":{"who":{"action":"accept"}}'*)
      result '"content":[{"type":"text","text":"accepted"}]'
      ;;
    *'"name":"ask"'*)
      say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"resultType\":\"input_required\",\"requestState\":\"s\",\"inputRequests\":{\"who\":{\"method\":\"elicitation/create\",\"params\":{\"message\":\"m\",\"requestedSchema\":{\"type\":\"object\",\"properties\":{}}}}}}}"
      ;;
    *)
      token=$(printf '%s' "$line" | sed -n 's/^.*"progressToken":\([0-9]*\).*$/\1/p')
      [ -n "$token" ] && say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":$token,\"progress\":1}}"
      case $line in
      *logLevel*) say '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":"said"}}' ;;
      esac
      result '"content":[{"type":"text","text":"worked"}]'
      ;;
    esac
    ;;
  :notifications/cancelled) case $line in *requestId*) listening= ;; esac ;;
  *) [ -n "$id" ] && error -32601 ;;
  esac
done
