//! Control for as long as targets are asked what they offer: children, and nothing else.

use agentlane_runtime::channel::Receiver;

use super::children::warm::Warm;
use super::children::{Children, ChildrenLimits};
use super::serve_child;
use crate::mesh::ToControl;

/// Starts the children that are asked for while `asking` runs, and ends them all.
pub async fn serve_children<T>(requests: &Receiver<ToControl>, asking: impl Future<Output = T>) -> T {
    let children = Children::new(ChildrenLimits::default());
    let mut warm = Warm::new(children.clone());
    let serving = async {
        while let Some(request) = requests.recv().await {
            // Nothing is judged: no target has a lock here.
            if let ToControl::Spawn(request) = request {
                serve_child(&children, &mut warm, *request);
            }
        }
        std::future::pending::<std::convert::Infallible>().await
    };
    let found = tokio::select! {
        found = asking => found,
        never = serving => match never {},
    };
    children.shutdown_all().await;
    found
}
